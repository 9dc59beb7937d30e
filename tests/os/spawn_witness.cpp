// Writes to descriptor 1 what it finds: arguments, environment, descriptors, session, signals.
#include <dirent.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

int main(int argc, char** argv) {
  std::string found;
  for (int i = 0; i < argc; ++i) found += std::string("argument ") + argv[i] + "\n";
  for (char** entry = environ; *entry != nullptr; ++entry) {
    found += std::string("environment ") + *entry + "\n";
  }
  if (DIR* const folder = ::opendir("/proc/self/fd")) {
    while (const dirent* const entry = ::readdir(folder)) {
      if (entry->d_name[0] == '.' || std::atoi(entry->d_name) == ::dirfd(folder)) continue;
      found += std::string("descriptor ") + entry->d_name + "\n";
    }
    (void)::closedir(folder);
  }
  if (::getsid(0) == ::getpid()) found += "own session\n";
  sigset_t mask;
  (void)::sigprocmask(SIG_SETMASK, nullptr, &mask);
  for (int signal = 1; signal < NSIG; ++signal) {
    if (::sigismember(&mask, signal) == 1) found += "blocked " + std::to_string(signal) + "\n";
    struct sigaction action {};
    if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_DFL) {
      found += "not default " + std::to_string(signal) + "\n";
    }
  }
  const auto written = ::write(1, found.data(), found.size());
  return written == static_cast<ssize_t>(found.size()) ? 0 : 1;
}
