// On which processors this library's threads run, and with them the checkpoint process.
//
// A thread begins on the processors of its maker. That is right where a launcher, or the program
// itself, has given the process some of the machine's: ranks that share a machine keep out of each
// other's way. It is wrong where only the maker was pinned, to a core of its own, as OpenMP pins
// (OMP_PROC_BIND) the thread that it starts in, even before main: all of the library would share
// that core with the training.
#pragma once

#include <array>
#include <climits>
#include <cstddef>

namespace ckptring::os {

class Processors {
 public:
  static constexpr unsigned kMost = 8192;  ///< as many as Linux can be built for

  /// None.
  Processors() noexcept = default;

  /// Those that the calling thread may run on; none if the system does not say.
  [[nodiscard]] static Processors of_this_thread() noexcept;

  /// For a thread that the calling one makes: the same. But where these are of one core only, all
  /// that the process is known to have: those it had when this library was loaded, and those that
  /// OpenMP, if there is one in the process, found and shares out. The system sees to it that none
  /// beyond the cpuset is among them.
  [[nodiscard]] static Processors for_own_thread();

  /// Lets the calling thread run on these, as far as the system allows it.
  void use() const noexcept;

  void add(unsigned processor) noexcept;
  [[nodiscard]] bool has(unsigned processor) const noexcept;
  [[nodiscard]] unsigned count() const noexcept;
  friend bool operator==(const Processors&, const Processors&) = default;
  friend Processors operator|(Processors left, const Processors& right) noexcept;

 private:
  using Word = unsigned long;
  static constexpr std::size_t kWordBits = sizeof(Word) * CHAR_BIT;
  std::array<Word, kMost / kWordBits> words_{};
};

}  // namespace ckptring::os
