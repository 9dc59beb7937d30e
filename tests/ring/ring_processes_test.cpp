// Trainer and checkpoint process as they really are: two processes, of which one is killed.
#include "os/pidfd.h"
#include "os/spawn.h"
#include "ring/mini_drain.h"
#include "ring/segment.h"
#include "support/temporary_directory.h"

#include <fcntl.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace ckptring::ring::test {
namespace {

constexpr double kStuckSecs = 60;
constexpr std::uint64_t kBlock = 64 << 10;
constexpr Geometry kGeometry{kBlock, 5, 2, 4096};

class RingProcesses : public ::testing::Test {
 protected:
  [[nodiscard]] Bells bells() const { return {data_.get(), space_.get(), result_.get()}; }

  void start() {
    os::SpawnRequest request;
    request.executable = CKPTRING_RING_DRAINER;
    request.arguments = {request.executable, folder_.path(), std::to_string(++incarnation_)};
    for (char** entry = environ; *entry != nullptr; ++entry) {
      request.environment.emplace_back(*entry);
    }
    request.descriptors = {null_.get(), null_.get(),  STDERR_FILENO, segment_.fd(),
                           data_.get(), space_.get(), result_.get(), self_.get()};
    drainer_ = os::spawn(request).pidfd;
  }
  void wait_for_death() {
    std::array<os::Waitable, 1> gone{os::Waitable{drainer_.get()}};
    ASSERT_TRUE(os::wait_any(gone, os::Deadline::after(kStuckSecs)));
  }
  void kill_and_replace() {
    ASSERT_TRUE(os::send_signal(drainer_.get(), SIGKILL));
    wait_for_death();
    const os::ExitStatus status = os::reap(drainer_.get());
    ASSERT_EQ(status.kind, os::ExitStatus::Kind::signalled) << status.in_words();
    ASSERT_EQ(status.value, SIGKILL);
    start();
  }

  [[nodiscard]] std::vector<std::byte> file_of_save(std::uint64_t save) const {
    std::ifstream in(folder_ / ("save-" + std::to_string(save)), std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    std::vector<std::byte> bytes(text.size());
    std::ranges::transform(text, bytes.begin(), [](char c) { return static_cast<std::byte>(c); });
    return bytes;
  }

  Segment segment_ = Segment::create(kGeometry, {});
  os::UniqueFd data_ = os::make_eventfd();
  os::UniqueFd space_ = os::make_eventfd();
  os::UniqueFd result_ = os::make_eventfd();
  os::UniqueFd self_ = os::open_pidfd(::getpid());
  os::UniqueFd null_{::open("/dev/null", O_RDWR | O_CLOEXEC)};
  os::UninheritedFd drainer_;
  std::uint32_t incarnation_ = 0;
  ckptring::test::TemporaryDirectory folder_;
};

TEST_F(RingProcesses, FilesComeOutWholeHoweverOftenTheConsumerIsKilled) {
  constexpr std::uint64_t kSaves = 40;
  constexpr int kKills = 30;
  std::mt19937_64 random(4711);
  start();
  Producer producer(segment_.view(), bells());
  int kills = 0;
  // How many blocks are staged, and so how often is thrown for a kill, depends on who is quicker.
  for (std::uint64_t save = 1; save <= kSaves || (kills < kKills && save <= 10 * kSaves); ++save) {
    const std::uint64_t blocks = 1 + random() % 25;
    const std::uint64_t bytes = (blocks - 1) * kBlock + 1 + random() % kBlock;
    const std::uint64_t end = random() % 5 == 0 ? random() % blocks : blocks;  // some are aborted
    ASSERT_TRUE(producer.wait_for_record(Tables::bytes_for(blocks), drainer_.get(),
                                         os::Deadline::after(kStuckSecs)));
    producer.open(stress_file(blocks, bytes), [&](std::span<std::byte> memory) {
      const Tables tables(memory);
      for (std::size_t i = 0; i < tables.constants.size(); ++i) {
        tables.constants[i] = Tables::constant(save, i);
      }
      std::fill(tables.ledger.begin(), tables.ledger.end(), 0);
    });
    for (std::uint64_t block = 0; block < end;) {
      if (producer.current_failed()) break;
      auto claim = producer.try_claim();
      if (!claim) {
        ASSERT_TRUE(producer.wait_for_slot(drainer_.get(), os::Deadline::after(kStuckSecs)));
        continue;
      }
      ++block;
      const auto contents = contents_of(save, claim->file_offset(), claim->bytes().size());
      std::memcpy(claim->bytes().data(), contents.data(), contents.size());
      claim->publish();
      if (random() % 16 == 0) {
        kill_and_replace();
        ++kills;
      }
    }
    const bool whole = producer.all_claimed();
    whole ? producer.seal() : producer.abort();
    if (random() % 2 == 0) {
      kill_and_replace();
      ++kills;
    }
    // The producer's own view of the end: the record is free again.
    const Record& record = segment_.view().record(save);
    Progress progress{};
    std::array<os::Waitable, 1> drainer{os::Waitable{drainer_.get()}};
    ASSERT_TRUE(sleep_until(
        segment_.view().supervisor().result_sleeping, result_.get(),
        [&] {
          const auto word =
              Word<Progress>::unpack(record.consumer_word.load(std::memory_order_seq_cst));
          progress = word.state;
          return word.save == save && is_terminal(word.state);
        },
        drainer, os::Deadline::after(kStuckSecs)))
        << "save " << save;
    if (whole && !MiniDrain::fails(save)) {
      ASSERT_EQ(progress, Progress::committed) << "save " << save;
      ASSERT_EQ(file_of_save(save), contents_of(save, 0, static_cast<std::size_t>(bytes)));
    } else {
      ASSERT_NE(progress, Progress::committed) << "save " << save;
      ASSERT_TRUE(file_of_save(save).empty());
    }
  }
  EXPECT_GE(kills, kKills);

  segment_.view().supervisor().shutdown.store(1, std::memory_order_seq_cst);
  ring_if_asleep(segment_.view().consumer().data_sleeping, data_.get());
  wait_for_death();
  const os::ExitStatus status = os::reap(drainer_.get());
  EXPECT_EQ(status.kind, os::ExitStatus::Kind::exited);
  EXPECT_EQ(status.value, 0);
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
    EXPECT_NE(entry.path().filename().string().front(), '.') << entry.path();
  }
}

}  // namespace
}  // namespace ckptring::ring::test
