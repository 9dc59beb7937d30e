// Where numbers come from.
#pragma once

#include <nlohmann/json.hpp>

#include <string>

namespace bench {

/// Processor, cores, memory, kernel, NVIDIA devices and their driver, the load when asked, and the
/// commit where the environment variable CKPTRING_COMMIT names it.
nlohmann::ordered_json describe_machine();

/// The file system that `directory` lies on, e.g. "ext4".
std::string file_system_of(const std::string& directory);

}  // namespace bench
