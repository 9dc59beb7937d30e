// The environment as a launcher leaves it, whoever has launched the test.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace ckptring::test {

/// While one exists, the environment has these variables and no other ones of launchers. For
/// processes in which no other thread looks at the environment.
class LaunchEnvironment {
 public:
  using Variables = std::map<std::string, std::string>;

  LaunchEnvironment(std::initializer_list<Variables::value_type> variables = {}) {
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string_view text = *entry;
      const std::string name(text.substr(0, text.find('=')));
      if (is_launchers(name)) before_[name] = text.substr(name.size() + 1);
    }
    for (const auto& [name, value] : before_) ::unsetenv(name.c_str());
    for (const auto& [name, value] : variables) put(name, value);
  }
  ~LaunchEnvironment() {
    for (const std::string& name : put_) ::unsetenv(name.c_str());
    for (const auto& [name, value] : before_) ::setenv(name.c_str(), value.c_str(), 1);
  }
  LaunchEnvironment(const LaunchEnvironment&) = delete;
  LaunchEnvironment& operator=(const LaunchEnvironment&) = delete;

  void put(const std::string& name, const std::string& value) {
    ::setenv(name.c_str(), value.c_str(), 1);
    put_.push_back(name);
  }

 private:
  static bool is_launchers(std::string_view name) {
    for (const std::string_view prefix :
         {"OMPI_", "PMI", "MPI_", "MV2_", "SLURM_", "TORCHELASTIC_"}) {
      if (name.starts_with(prefix)) return true;
    }
    return name == "RANK" || name == "WORLD_SIZE" || name == "LOCAL_WORLD_SIZE" ||
           name == "GROUP_WORLD_SIZE";
  }

  Variables before_;
  std::vector<std::string> put_;
};

}  // namespace ckptring::test
