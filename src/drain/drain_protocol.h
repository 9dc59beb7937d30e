// What trainer and helper program agree on, besides the ring itself.
#pragma once

#include <cstddef>

namespace ckptring::drain {

/// The helper's descriptors; it has no others.
enum DrainFd : int {
  kNullInput = 0,
  kNullOutput = 1,
  kLogPipe = 2,
  kRing = 3,
  kTrainer = 4,  ///< pidfd
  kDataBell = 5,
  kSpaceBell = 6,
  kResultBell = 7,
};

inline constexpr const char* kProtocolOption = "--ckptring-protocol=";
inline constexpr const char* kIncarnationOption = "--incarnation=";

/// A line of the helper's log begins with it, then comes the digit of its level.
inline constexpr char kLogMark = '\x01';
inline constexpr std::size_t kLongestLogLine = 4000;  ///< below PIPE_BUF, so that lines stay whole

/// The helper's exit statuses (from sysexits.h where they exist there).
enum DrainExit : int {
  kDone = 0,
  kUsage = 64,         ///< not started by a trainer
  kWrongVersion = 76,  ///< EX_PROTOCOL: another version of the protocol
  kBroken = 70,        ///< EX_SOFTWARE: an error outside of any save
  kOrphaned = 75,      ///< EX_TEMPFAIL: gave up after the trainer was gone
};

}  // namespace ckptring::drain
