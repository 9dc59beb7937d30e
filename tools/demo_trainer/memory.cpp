#include "memory.h"

#include <fstream>
#include <sstream>
#include <string>

namespace demo {

SharedRing measure_ring(int process_id) {
  SharedRing found;
  std::ifstream maps("/proc/" + std::to_string(process_id) + "/smaps");
  std::string line;
  bool in_ring = false;
  while (std::getline(maps, line)) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t kibibytes = 0;
    words >> name;
    if (name.empty() || name.back() != ':') {
      // A mapping's first line. The ring is a memfd; nothing else of the helper's is.
      in_ring = line.find("/memfd:") != std::string::npos;
    } else if (in_ring && name == "Size:" && words >> kibibytes) {
      found.ring_bytes += kibibytes * 1024;
    } else if (!in_ring && name == "Pss:" && words >> kibibytes) {
      found.helper_bytes += kibibytes * 1024;
    }
  }
  return found;
}

}  // namespace demo
