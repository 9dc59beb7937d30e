// Another program that is measured beside this library: it obeys lines of JSON.
#pragma once

#include "support/process.h"

#include <nlohmann/json.hpp>

#include <sys/types.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {

/// The peer died, was silent for too long, or said what went wrong. Says so, with the last line
/// that it wrote to stderr.
class PeerError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Processor time of a peer so far, in seconds.
struct FamilyCpu {
  double leader = 0;
  double others = 0;  ///< of those that live
};

/// Not thread-safe.
class Peer {
 public:
  /// Starts `arguments[0]`, looked for in PATH, in a session of its own.
  /// @throws PeerError if it cannot be started, std::system_error
  explicit Peer(std::vector<std::string> arguments);
  /// Ends its input, gives it a while to end by itself, and kills what is left of its session.
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  /// Sends one line and waits for one. `meanwhile` is called every few milliseconds until then,
  /// and may throw.
  /// @throws PeerError also if the answer has a member "error"; the peer is of no use after that
  nlohmann::json ask(const nlohmann::json& command, double timeout_secs,
                     const std::function<void()>& meanwhile);

  [[nodiscard]] ::pid_t id() const noexcept { return process_; }
  /// PSS and page tables of its family (see process.h). Those that end meanwhile are left out.
  [[nodiscard]] ProcessMemory memory() const;
  /// Of its family.
  [[nodiscard]] FamilyCpu cpu() const;

 private:
  void wait_until_ready(short events, double timeout_secs,
                        const std::function<void()>& meanwhile) const;
  [[noreturn]] void fail(const std::string& what) const;
  [[noreturn]] void fail_at_end() const;

  std::string name_;
  ::pid_t process_ = -1;
  int pidfd_ = -1;
  int channel_ = -1;  ///< its stdin and stdout
  int errors_ = -1;   ///< a memory file: its stderr
  std::string unread_;
};

}  // namespace bench
