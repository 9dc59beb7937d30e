#include "save/ring_keeper.h"

#include "os/clock.h"
#include "os/memory_left.h"
#include "save/ring_size.h"
#include "store/drain_tables.h"

#include <ckptring/error.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

namespace ckptring::save {
namespace {

/// Memory is made known to devices in pieces of about this size: one to two milliseconds of the
/// driver's time.
constexpr std::uint64_t kPinnedPiece = 32ull << 20;

ring::Settings settings_for(const CheckpointerConfig& config, RankInfo rank) {
  ring::Settings settings{};
  settings.global_rank = rank.global_rank;
  settings.global_world_size = rank.global_world_size;
  settings.write_mode = static_cast<std::int32_t>(config.writer_config.mode);
  settings.queue_depth = config.writer_config.queue_depth;
  settings.threads = config.writer_config.threads;
  settings.log_level = static_cast<std::int32_t>(log_level());
  settings.busy_timeout_secs = config.writer_config.busy_timeout_secs;
  settings.orphan_timeout_secs = config.process_config.orphan_timeout_secs;
  return settings;
}

}  // namespace

DrainedRing::DrainedRing(const CheckpointerConfig& config, supervise::DrainProgram& program,
                         RankInfo rank, const ring::Geometry& geometry,
                         supervise::CheckpointProcess::OnOutcome on_outcome,
                         supervise::CheckpointProcess::OnUnfilled on_unfilled)
    : segment(ring::Segment::create(geometry, settings_for(config, rank))),
      producer(segment.view(), bells.bells()),
      process(config.process_config, program, rank, segment, bells, producer, std::move(on_outcome),
              std::move(on_unfilled)) {}

RingKeeper::RingKeeper(Lifetime& life, SavesInFlight& saves, const CheckpointerConfig& config,
                       RankInfo rank, stage::DeviceAccess& devices)
    : life_(life),
      saves_(saves),
      config_(config),
      rank_(rank),
      log_{rank.global_rank},
      devices_(devices),
      program_(config.process_config.executable) {}

std::shared_ptr<DrainedRing> RingKeeper::ring_for(const SaveJob& job, const PendingSave& turn) {
  std::shared_ptr<DrainedRing> ring = fitting(job.plan, turn);
  if (!job.devices.empty() && !ring->pinned) pin(*ring, job.devices.front().device);
  return ring;
}

/// What a save may do is what its caller may. A helper is started by a thread of this library,
/// which is like the caller unless only that one thread has changed, or all have since.
void RingKeeper::check_credentials(const PendingSave& turn) {
  const os::Credentials& callers = turn.credentials;
  const os::Credentials here = os::Credentials::of_this_thread();
  if (callers.can_be_handed_on() && callers == here) return;
  throw Error(ErrorCode::permission, "save to", turn.report.path,
              fmt::format("the calling thread was {}, and a checkpoint process that is started now "
                          "would be user {}, group {}: it may not do what the caller may",
                          callers.in_words(), here.user, here.group));
}

void RingKeeper::pin(DrainedRing& ring, int device) const {
  const std::uint64_t block = config_.process_config.block_bytes;
  stage::WaitPopulated wait;
  if (ring.warmer) {
    // Small pages that the driver holds could not become huge ones any more.
    wait = [&warmer = *ring.warmer](const std::stop_token& stop_pinning, std::uint64_t bytes) {
      warmer.wait(stop_pinning, bytes);
    };
  }
  ring.pinned = devices_.copies()->pin(ring.segment.view().blocks(),
                                       std::max(kPinnedPiece / block * block, block), device,
                                       std::move(wait));
}

std::shared_ptr<DrainedRing> RingKeeper::fitting(const plan::FilePlan& plan,
                                                 const PendingSave& turn) {
  const std::uint64_t plan_bytes =
      store::DrainTableSizes::of(plan, config_.process_config.block_bytes).bytes();
  std::shared_ptr<DrainedRing> now = current();
  const bool usable = is_usable(now.get(), turn, plan_bytes);
  const std::uint64_t held = now ? now->segment.view().blocks().size() : 0;
  if (usable && now->announced && plan.total_bytes() <= held) return now;

  // What this ring holds counts as left for its successor.
  const RingSize wanted = choose_ring(config_, plan.total_bytes(), plan_bytes, [&] {
    os::MemoryLeft left = ask_memory_left();
    left.bytes += held;
    return left;
  });
  if (usable && !is_worth_making(wanted.geometry, now->segment.view().geometry())) {
    if (!now->announced) announce(*now, wanted.why);
    return now;
  }
  {
    // Nobody may be draining the old ring.
    std::unique_lock lock(life_.mutex);
    life_.changed.wait(lock,
                       [&] { return life_.given_up || !saves_.any_before(turn.submitted_ns); });
  }
  life_.check_not_given_up(turn.report.path);
  check_credentials(turn);
  now.reset();
  remake(turn.report.path, wanted);
  return current();
}

/// Whether a save with tables of this size can go through that ring, if there is one.
bool RingKeeper::is_usable(const DrainedRing* ring, const PendingSave& turn,
                           std::uint64_t tables_bytes) const {
  if (ring == nullptr || ring->process.given_up()) return false;
  // One that was born as somebody else may do what the caller may not, or the other way round. What
  // only a thread can be, and no program that it starts, is nobody's.
  if (ring->process.credentials() != turn.credentials || !turn.credentials.can_be_handed_on()) {
    return false;
  }
  if (ring->producer.fits(tables_bytes)) return true;
  if (config_.process_config.plan_bytes == 0) return false;
  throw Error(ErrorCode::invalid_argument, "plan a save", "",
              "its tables need " + std::to_string(tables_bytes) +
                  " bytes of the plan area, and plan_bytes is " +
                  std::to_string(config_.process_config.plan_bytes));
}

void RingKeeper::make_first() {
  // An automatic one is the smallest, until a file is known: it may do for that.
  const bool final = config_.process_config.ring_bytes != 0;
  make(choose_ring(config_, 0, 0, ask_memory_left), final);
}

void RingKeeper::remake(const std::string& path, const RingSize& size) {
  drop();
  try {
    life_.check_not_given_up(path);  // that may have taken long
    make(size, true);
  } catch (...) {
    {
      const std::scoped_lock lock(life_.mutex);
      remake_failure_ = std::current_exception();
    }
    life_.changed.notify_all();
    throw;
  }
  life_.changed.notify_all();
}

void RingKeeper::make(const RingSize& size, bool final) {
  auto made = std::make_shared<DrainedRing>(
      config_, program_, rank_, size.geometry,
      [this](std::uint64_t number, supervise::SaveOutcome outcome) {
        saves_.on_outcome(number, std::move(outcome));
      },
      [this](std::uint64_t number, double secs) { on_unfilled(number, secs); });
  if (final) announce(*made, size.why);
  const std::scoped_lock lock(life_.mutex);
  ring_ = std::move(made);
}

void RingKeeper::announce(DrainedRing& ring, const std::string& why) {
  ring.announced = true;
  const ring::Geometry& geometry = ring.segment.view().geometry();
  log_.info("ring of {} blocks of {} KiB: {}", geometry.slot_count, geometry.block_bytes >> 10,
            why);
  if (!config_.process_config.prefault) return;
  try {
    auto warmer = std::make_unique<ring::Warmer>(ring.segment, rank_.global_rank);
    const std::scoped_lock lock(life_.mutex);
    ring.warmer = std::move(warmer);
  } catch (const Error& error) {
    log_.warn("the ring is not populated in the background, and the first save will be slower: {}",
              error.what());
  }
}

void RingKeeper::drop() {
  std::shared_ptr<DrainedRing> old;
  {
    const std::scoped_lock lock(life_.mutex);
    old = std::move(ring_);
    ring_ = nullptr;
    remake_failure_ = nullptr;
    saves_.forget_numbers();
  }
  if (old != nullptr && !old->process.given_up()) old->process.shut_down(kIdleShutdownSecs);
}

void RingKeeper::let_go() {
  std::shared_ptr<DrainedRing> last;
  {
    const std::scoped_lock lock(life_.mutex);
    last = std::move(ring_);
  }
  // Not under the mutex: its watching thread, which is joined, may be delivering an outcome.
  last.reset();
}

std::shared_ptr<DrainedRing> RingKeeper::current() const {
  const std::scoped_lock lock(life_.mutex);
  return ring_;
}

std::shared_ptr<DrainedRing> RingKeeper::await(const char* operation) const {
  std::unique_lock lock(life_.mutex);
  life_.changed.wait(lock, [this] { return life_.closed || ring_ || remake_failure_; });
  life_.require_open(operation);
  if (!ring_) std::rethrow_exception(remake_failure_);
  return ring_;
}

void RingKeeper::wait_prefaulted() const {
  const std::shared_ptr<DrainedRing> ring = await("wait for the ring");
  ring::Warmer* warmer = nullptr;
  {
    const std::scoped_lock lock(life_.mutex);
    warmer = ring->warmer.get();
  }
  if (warmer != nullptr) warmer->wait();
}

double RingKeeper::secs_without_progress(std::uint64_t since_ns) const {
  const std::shared_ptr<DrainedRing> ring = current();
  return os::seconds_since(
      std::max(since_ns, ring ? ring->process.last_activity_ns() : std::uint64_t{0}));
}

std::string RingKeeper::copies_under_way() const {
  const std::vector<std::string> copies = devices_.under_way();
  return copies.empty() ? "what the staging thread does, or a look at a file system"
                        : fmt::format("{}", fmt::join(copies, ", "));
}

void RingKeeper::on_unfilled(std::uint64_t number, double secs) const {
  base::LogContext{rank_.global_rank, number}.warn(
      "nothing was staged for {:.1f} s, and nothing is left to write: the save goes on once these "
      "have ended: {}",
      secs, copies_under_way());
}

}  // namespace ckptring::save
