// Reads what a load asked for, after everything but the payloads was checked.
#pragma once

#include "base/log.h"
#include "store/file_source.h"
#include "torch/fill_plan.h"

#include <ckptring/torch/reader.h>

#include <vector>

namespace ckptring::torch_state {

/// Fills the tensors of all records, which come in the order of the file.
/// @throws Error mismatch, before anything is changed, where tensors lie in the same memory and the
///         file has different values for them; damaged, also where reading fails: it names the key
///         at hand and those that are no longer as they were; device_failed and out_of_memory, of
///         a device, likewise; invalid_argument (LoadOptions::threads), out_of_memory, of the host
void fill_records(const store::FileSource& source, const FillPlan& plan,
                  std::vector<RecordFills>& records, const LoadOptions& options,
                  const base::LogContext& log);

}  // namespace ckptring::torch_state
