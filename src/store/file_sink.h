// The built-in file writer: hidden temporary, several writes in flight, commit by rename.
#pragma once

#include "store/file_system.h"
#include "store/save_sink.h"

#include <ckptring/config.h>
#include <ckptring/writer.h>

#include <memory>

namespace ckptring::store {

/// @param hook may be null; must outlive the sink
/// @throws Error invalid_argument for a nonsense configuration
std::unique_ptr<SaveSink> make_file_sink(FileSystem& files, const CheckpointWriterConfig& config,
                                         const SaveTarget& target, WriterHook* hook);

/// Streams into a custom writer instead, in file order.
std::unique_ptr<SaveSink> make_stream_sink(CheckpointWriter& writer, const SaveTarget& target,
                                           WriterHook* hook);

/// Checks `path`, makes it absolute and chooses the names of a save.
/// @param file_name  of the file in it; empty: the rank's
/// @throws Error invalid_argument (empty path, name too long, not absolute and no current folder, a
///         file's name that is hidden or none), not_found (a link in the path that leads to
///         nothing)
SaveTarget make_target(FileSystem& files, const std::string& path, const RankInfo& rank,
                       std::uint64_t total_bytes, const std::string& file_name = {});

/// Also called by those who keep a configuration for later.
/// @throws Error invalid_argument
void check_writer_config(const CheckpointWriterConfig& config);

}  // namespace ckptring::store
