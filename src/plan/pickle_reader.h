// Reads a pickle as torch.save writes it. An allow-list: nothing is imported or called, known
// names have a meaning here and everything else becomes Unsupported.
#pragma once

#include "plan/value.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ckptring::plan {

/// Where a storage's bytes are.
struct StoredRecord {
  std::size_t index;   ///< among the records of the file
  std::uint64_t size;  ///< bytes
};

/// Finds the record of a storage by its key. Nothing if there is none.
using FindRecord = std::function<std::optional<StoredRecord>(std::string_view key)>;

/// Protocol 2. Takes memory and time in proportion to the size of the pickle, a small multiple of
/// it, whatever it holds; and so does the work of a recursive walk over the result, though
/// containers may be shared (see value.h). Takes little of the stack.
/// @param path of the file, for error messages
/// @param find asked once for each storage key; if empty, storages are as large as the pickle says
/// @throws Error damaged (naming the byte or the key), unsupported_value (another protocol)
Document read_pickle(std::vector<std::byte> pickle, const std::string& path,
                     const FindRecord& find = {});

}  // namespace ckptring::plan
