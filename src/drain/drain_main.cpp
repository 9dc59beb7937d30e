#include "base/log.h"
#include "base/system_words.h"
#include "drain/drain_loop.h"
#include "drain/drain_protocol.h"
#include "drain/log_to_pipe.h"
#include "os/new_fd.h"
#include "ring/segment.h"
#include "store/file_system.h"

#include <ckptring/drain.h>
#include <ckptring/error.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <optional>
#include <string_view>

namespace ckptring {
namespace drain {
namespace {

std::optional<std::uint32_t> number_after(std::string_view option, std::string_view argument) {
  if (!argument.starts_with(option)) return std::nullopt;
  argument.remove_prefix(option.size());
  std::uint32_t value = 0;
  const auto [end, error] =
      std::from_chars(argument.data(), argument.data() + argument.size(), value);
  if (error != std::errc{} || end != argument.data() + argument.size()) return std::nullopt;
  return value;
}

/// What ends a trainer must not end its checkpoint process: it stops when its work is done.
/// Launchers end workers by killpg; a file size limit would kill instead of failing the write.
bool ignore_signals() {
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  for (const int signal : {SIGINT, SIGHUP, SIGTERM, SIGQUIT, SIGPIPE, SIGXFSZ}) {
    if (::sigaction(signal, &ignore, nullptr) != 0) return false;
  }
  return true;
}

/// umask(2) tells it only by changing it: while no other thread runs in this process.
mode_t own_umask_read() noexcept {
  const mode_t mask = ::umask(0);
  (void)::umask(mask);
  return mask;
}

int drain(std::uint32_t incarnation, const WriterFactory& make_writer) {
  const mode_t own_umask = own_umask_read();
  const ring::Segment segment = ring::Segment::attach(os::UniqueFd(kRing));
  const ring::Settings& settings = segment.view().settings();
  set_log_level(static_cast<LogLevel>(settings.log_level));
  const base::LogContext log{settings.global_rank};
  if (!ignore_signals()) log.warn("cannot ignore signals: {}", base::words_of_errno(errno));
  // A name for ps and top; without it nothing is lost.
  (void)::prctl(PR_SET_NAME, "ckptring-drain");
  WriterSetup writer;
  TrainersEnd trainer{kTrainer, kLogPipe};
  os::UninheritedFd pipe;
  if (make_writer) {
    // Code of somebody else's may put what it likes in the place of standard error.
    pipe = os::UninheritedFd::made_by(
        [] { return os::UniqueFd(::fcntl(kLogPipe, F_DUPFD_CLOEXEC, kLogPipe + 1)); });
    if (!pipe) throw Error::from_errno(errno, "keep the pipe to the trainer", "");
    trainer.pipe = pipe.get();
    writer = make_writer({settings.global_rank, settings.global_world_size});
  } else {
    // The built-in writer executes nothing; a custom one may need to.
    (void)::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  }
  DrainLoop loop(segment.view(), {kDataBell, kSpaceBell, kResultBell}, trainer,
                 store::system_files(), writer, own_umask);
  switch (loop.run(incarnation)) {
    case DrainLoop::End::orphaned:
      // Writes that hang would hold an orderly exit; they end with the descriptors.
      ::_exit(kOrphaned);
    case DrainLoop::End::shutdown:
    case DrainLoop::End::trainer_gone:
      break;
  }
  return kDone;
}

int run(int argc, char** argv, const WriterFactory& make_writer) {
  os::reserve_standard_numbers();  // a trainer gives them; whoever calls by hand may not
  const auto protocol =
      argc == 3 ? number_after(kProtocolOption, argv[1]) : std::optional<std::uint32_t>{};
  const auto incarnation =
      argc == 3 ? number_after(kIncarnationOption, argv[2]) : std::optional<std::uint32_t>{};
  if (!protocol || !incarnation) {
    (void)std::fprintf(stderr,
                       "%s: this is the checkpoint process of a ckptring trainer.\n"
                       "The trainer starts it and hands it a ring in shared memory; there is "
                       "nothing to run by hand.\n",
                       argc > 0 ? argv[0] : "ckptring-drain");
    return kUsage;
  }
  log_to_pipe(kLogPipe);
  // The ring, which tells the rank, may not be readable here: what is said plainly gets the rank
  // from the trainer.
  if (*protocol != ring::kProtocolVersion) {
    (void)std::fprintf(stderr,
                       "%s speaks version %u of the ring's protocol, the trainer version %u\n",
                       argv[0], ring::kProtocolVersion, *protocol);
    return kWrongVersion;
  }
  try {
    return drain(*incarnation, make_writer);
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "%s\n", error.what());
    return kBroken;
  }
}

}  // namespace
}  // namespace drain

int drain_main(int argc, char** argv, const WriterFactory& make_writer) {
  return drain::run(argc, argv, make_writer);
}

}  // namespace ckptring
