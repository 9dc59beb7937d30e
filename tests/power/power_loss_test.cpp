// The power may go at any instant of a save: under the final name is the old file or the new one,
// whole, and the new one once the save was reported as written.

#include "base/checksum.h"
#include "plan/pt_archive.h"
#include "power/crash_states.h"
#include "power/recording_files.h"
#include "store/drive.h"
#include "store/file_source.h"
#include "store/on_disk.h"
#include "support/fault_row.h"
#include "support/materialize.h"
#include "support/sample_save.h"
#include "support/write_modes.h"

#include <ckptring/checkpoints.h>

#include <fmt/format.h>

#include <optional>

namespace ckptring::store::test {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::size_t kBlock = 8192;
constexpr std::string_view kRun = "runs/a";  // below it, one directory for each step
const std::string kStep = std::string(kRun) + "/step_1";
const std::string kFile = kStep + "/checkpoint_0.pt";

/// A whole checkpoint with storages of these sizes.
Bytes checkpoint(const std::vector<std::uint64_t>& sizes, std::uint64_t seed) {
  const auto storages = ckptring::test::noise(sizes, seed);
  return ckptring::test::materialize(ckptring::test::job_for("", storages).plan, *storages);
}

/// Reads everything, as `ckptring verify` does. @throws Error
void verify(const std::string& path) {
  const auto source = open_file_source(path);
  const plan::PtArchive archive = plan::PtArchive::open(*source);
  for (const plan::Record& record : archive.records()) {
    Bytes bytes(record.size);
    source->read(record.data_offset, bytes);
    ASSERT_EQ(base::crc32(bytes), record.crc32) << "record " << record.name;
  }
  (void)archive.read_value(*source);
}

void write_tree(const std::string& path, const CrashState& state, const Node& node) {
  for (const auto& [name, child] : node.names) {
    const Node& found = state.nodes()[child];
    std::string below = path;
    below.append("/").append(name);
    if (found.directory) {
      std::filesystem::create_directory(below);
      write_tree(below, state, found);
    } else {
      write_text(below, {reinterpret_cast<const char*>(found.bytes.data()), found.bytes.size()});
    }
  }
}

/// The tree with its names, and what is in the file under the final name.
std::string shape(const CrashState& state, const Node& node, const Node* seen) {
  std::string out = "{";
  for (const auto& [name, child] : node.names) {
    const Node& found = state.nodes()[child];
    out += name + (found.directory ? shape(state, found, seen) : std::string());
    if (&found == seen) out += fmt::format("={:x}", base::crc32(found.bytes));
    out += ",";
  }
  return out + "}";
}

struct Verdict {
  std::uint64_t states = 0;
  std::uint64_t lost = 0;   ///< reported and not there, or the old one gone
  std::uint64_t torn = 0;   ///< neither the old nor the new one
  std::uint64_t kinds = 0;  ///< different sights of the tree

  void add(const Verdict& other) {
    states += other.states;
    lost += other.lost;
    torn += other.torn;
    kinds += other.kinds;
  }
  [[nodiscard]] bool harmless() const { return lost == 0 && torn == 0; }
};

void report(const std::string& row, const Verdict& verdict) {
  ckptring::test::FaultRow{row, verdict.states, verdict.lost, verdict.torn}.report();
}

/// Judges every state that a power cut may leave. Each kind of state is also put on a real disk,
/// read there by the readers of this library, and saved over.
Verdict judge(const Recording& recording, const std::optional<Bytes>& old_file,
              const Bytes& new_file) {
  Verdict verdict;
  std::set<std::string> met;
  CrashStates(recording, kFile).for_each([&](const CrashState& state, bool reported) {
    ++verdict.states;
    const Node* const seen = state.find(kFile);
    if (seen == nullptr) {
      if (old_file || reported) ++verdict.lost;
    } else if (seen->bytes != new_file) {
      if (!old_file || seen->bytes != *old_file) {
        ++verdict.torn;
        return;
      }
      if (reported) ++verdict.lost;
    }
    if (!met.insert(shape(state, state.nodes().front(), seen)).second) return;
    ++verdict.kinds;
    const TemporaryDirectory disk;
    write_tree(disk.path(), state, state.nodes().front());
    const auto found = latest(disk / std::string(kRun), {.wait_secs = 0});
    EXPECT_EQ(found.has_value(), seen != nullptr);
    if (seen != nullptr) {
      EXPECT_NO_THROW(verify(disk / kFile));
    }
    // Whatever is left is in nobody's way.
    const SaveTarget where = make_target(system_files(), disk / kStep, {0, 1}, new_file.size());
    save_all(*make_file_sink(system_files(), {}, where, nullptr), new_file, kBlock);
    EXPECT_EQ(contents(disk / kFile), new_file);
    EXPECT_EQ(std::filesystem::directory_iterator(disk / kStep)->path(), disk / kFile);
  });
  return verdict;
}

enum class Before { nothing, old_file, old_file_and_leftover };

class PowerLoss : public ::testing::TestWithParam<std::tuple<WriteMode, Before>> {
 protected:
  PowerLoss() {
    if (before() != Before::nothing) {
      std::filesystem::create_directories(disk_ / kStep);
      old_file_ = checkpoint({200, 12000}, 1);
      write_text(disk_ / kFile,
                 {reinterpret_cast<const char*>(old_file_->data()), old_file_->size()});
    }
    if (before() == Before::old_file_and_leftover) {
      write_text(disk_ / (kStep + "/.checkpoint_0.pt.0123456789abcdef0123456789abcdef.tmp"), "?");
    }
  }
  void SetUp() override {
    const std::string refusal = ckptring::test::refusal_of(mode());
    if (!refusal.empty()) GTEST_SKIP() << refusal;
  }
  [[nodiscard]] static WriteMode mode() { return std::get<0>(GetParam()); }
  [[nodiscard]] static Before before() { return std::get<1>(GetParam()); }
  [[nodiscard]] static std::unique_ptr<SaveSink> sink(FileSystem& files, const SaveTarget& where) {
    CheckpointWriterConfig config;
    config.mode = mode();
    return make_file_sink(files, config, where, nullptr);
  }

  [[nodiscard]] Recording record_save(const Bytes& bytes) const {
    RecordingFiles files(disk_.path());
    const SaveTarget where = make_target(files, disk_ / kStep, {0, 1}, bytes.size());
    save_all(*sink(files, where), bytes, kBlock);
    files.report();
    return files.take();
  }

  /// A save whose process dies at `step`, and is brought to its end by another one. Nothing if
  /// there are not that many steps.
  [[nodiscard]] std::optional<Recording> record_restart(const Bytes& bytes,
                                                        std::uint64_t step) const {
    RecordingFiles files(disk_.path());
    const SaveTarget where = make_target(files, disk_ / kStep, {0, 1}, bytes.size());
    const std::size_t blocks = block_count(bytes.size(), kBlock);
    Beginning beginning = Beginning::resuming;
    const PhaseRecorder record = [&](CommitPhase phase, const std::string&) {
      if (phase == CommitPhase::renaming) beginning = Beginning::renaming;
    };
    std::size_t drained = 0;
    const auto drain = [&](Beginning how) {
      const auto one = sink(files, where);
      EXPECT_TRUE(one->begin(how));
      if (how != Beginning::renaming && drained < blocks) {
        write_blocks(*one, bytes, kBlock, drained, blocks);
      }
      drained = blocks;
      one->commit(record);
    };
    files.die_at(step);
    try {
      drain(Beginning::fresh);
      return {};
    } catch (const Died&) {
    }
    files.live();
    drain(beginning);
    files.report();
    return files.take();
  }

  TemporaryDirectory disk_;
  std::optional<Bytes> old_file_;
};

std::string case_name(const ::testing::TestParamInfo<std::tuple<WriteMode, Before>>& info) {
  const std::string mode = std::get<0>(info.param) == WriteMode::buffered ? "Buffered" : "Direct";
  switch (std::get<1>(info.param)) {
    case Before::nothing:
      return mode + "First";
    case Before::old_file:
      return mode + "Overwriting";
    default:
      return mode + "OverwritingBesideALeftover";
  }
}

INSTANTIATE_TEST_SUITE_P(AnySave, PowerLoss,
                         ::testing::Combine(::testing::Values(WriteMode::direct_threads,
                                                              WriteMode::buffered),
                                            ::testing::Values(Before::nothing, Before::old_file,
                                                              Before::old_file_and_leftover)),
                         case_name);

TEST_P(PowerLoss, LeavesTheOldFileOrTheNewOne) {
  Verdict all;
  // Small enough for every combination of sectors, and of several blocks.
  for (const auto& sizes : {std::vector<std::uint64_t>{40}, {3000, 20000, 64}}) {
    const Bytes bytes = checkpoint(sizes, 2);
    const Verdict verdict = judge(record_save(bytes), old_file_, bytes);
    EXPECT_GT(verdict.kinds, 2U);
    all.add(verdict);
    if (before() == Before::nothing) std::filesystem::remove_all(disk_ / "runs");
    if (old_file_) old_file_ = contents(disk_ / kFile);
  }
  report("power loss", all);
}

TEST_P(PowerLoss, AfterADeathOfTheCheckpointProcessLeavesTheOldFileOrTheNewOne) {
  const Bytes bytes = checkpoint({3000, 20000, 64}, 2);
  Verdict all;
  std::uint64_t step = 0;
  for (;; ++step) {
    const auto recording = record_restart(bytes, step);
    if (!recording) break;
    all.add(judge(*recording, old_file_, bytes));
    // As it was before.
    if (old_file_) {
      write_text(disk_ / kFile,
                 {reinterpret_cast<const char*>(old_file_->data()), old_file_->size()});
    } else {
      std::filesystem::remove_all(disk_ / "runs");
    }
  }
  EXPECT_GT(step, 10U);
  report(fmt::format("power loss after a death at {} points", step), all);
}

// Without one of its syncs a save must be found out, or the tests above prove nothing.

Recording without(Recording recording, const std::function<bool(const Operation&)>& left_out) {
  std::erase_if(recording.operations, left_out);
  return recording;
}

TEST_P(PowerLoss, EverySyncOfASaveIsNeeded) {
  const Bytes bytes = checkpoint({3000, 20000, 64}, 2);
  const Recording recording = record_save(bytes);
  ASSERT_TRUE(judge(recording, old_file_, bytes).harmless());
  std::size_t syncs = 0;
  for (const Operation& sync : recording.operations) {
    if (sync.kind != Operation::Kind::sync) continue;
    ++syncs;
    const Recording careless =
        without(recording, [&](const Operation& one) { return one.begun == sync.begun; });
    const Verdict verdict = judge(careless, old_file_, bytes);
    if (recording.nodes[sync.subject].directory) {
      EXPECT_GT(verdict.lost, 0U) << "sync " << syncs;
    } else {
      EXPECT_GT(verdict.torn, 0U);
    }
  }
  // The file, its directory, and each that holds a new name: runs/a/step_1 in a known place.
  EXPECT_EQ(syncs, before() == Before::nothing ? 5U : 2U);
}

TEST_P(PowerLoss, ASyncAfterTheRenameWouldBeTooLate) {
  const Bytes bytes = checkpoint({3000, 20000, 64}, 2);
  Recording recording = record_save(bytes);
  Operation* rename = nullptr;
  Operation* sync = nullptr;
  for (Operation& one : recording.operations) {
    if (one.kind == Operation::Kind::rename) rename = &one;
    if (one.kind == Operation::Kind::sync && !recording.nodes[one.subject].directory) sync = &one;
  }
  ASSERT_TRUE(rename != nullptr && sync != nullptr);
  ASSERT_LT(sync->ended, rename->begun);
  std::swap(sync->begun, rename->begun);
  std::swap(sync->ended, rename->ended);
  EXPECT_GT(judge(recording, old_file_, bytes).torn, 0U);
}

}  // namespace
}  // namespace ckptring::store::test
