// Who is measured.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace bench {

/// A contestant that is not ours could not go on. The others do.
class ContestantFailed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Leaves no file, process or memory behind from one run to the next.
/// `Figures`: what comes out of a run. Among it `notes`, sentences on what to beware of.
template <class Figures>
class Contestant {
 public:
  Contestant(std::string id, std::string label) : id_(std::move(id)), label_(std::move(label)) {}
  virtual ~Contestant() = default;
  Contestant(const Contestant&) = delete;
  Contestant& operator=(const Contestant&) = delete;

  [[nodiscard]] const std::string& id() const noexcept { return id_; }
  [[nodiscard]] const std::string& label() const noexcept { return label_; }

  /// Begins anew, with a fresh process or checkpointer. `round` is counted from 0.
  /// @throws ContestantFailed
  virtual Figures run(int round) = 0;

 private:
  std::string id_;
  std::string label_;
};

}  // namespace bench
