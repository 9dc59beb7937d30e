// What it costs to hand a block over: between threads and processes, beside other ways
#include "handoff/descriptor_channel.h"
#include "handoff/message_queue_channel.h"
#include "handoff/ring_channel.h"
#include "handoff/sides.h"
#include "handoff/spsc_channel.h"
#include "handoff/steps.h"
#include "support/command.h"
#include "support/report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace {

using bench::Apart;
using bench::BothTimes;
using bench::DescriptorPingPong;
using bench::Goal;
using bench::Series;
using bench::Shape;
using bench::Wait;

constexpr std::uint64_t kSharedBytes = 32 << 20;  ///< of one channel; /dev/shm often has 64 MiB
constexpr std::uint64_t kLeastSlots = 8;
constexpr std::uint64_t kLeastBlocks = 64;
/// Memory that is handed over in one measurement, unless the blocks would be too many or too few.
constexpr std::uint64_t kStreamBytes = 256 << 20;
/// A round trip with a wake-up each way takes a hundred times as long as one without.
constexpr std::uint64_t kSpinsPerSleep = 50;

struct Options {
  int rounds = 15;
  std::uint64_t blocks = 100'000;
  std::vector<std::size_t> block_kib{0, 4, 64, 4096};
};

const char* name_of(Apart apart) { return apart == Apart::threads ? "threads" : "processes"; }

std::string size_in_words(std::size_t bytes) {
  if (bytes == 0) return "empty blocks";
  if (bytes % (1 << 20) == 0) return fmt::format("blocks of {} MiB", bytes >> 20);
  return fmt::format("blocks of {} KiB", bytes >> 10);
}

/// One way of handing blocks over, in one setting.
struct Stream {
  Series rate;
  Series first_cpu;   ///< of the side that fills
  Series second_cpu;  ///< of the side that reads

  /// @param setting  what the JSON keys begin with
  Stream(const std::string& setting, const char* id, const char* label)
      : rate(series(setting, id, label, "rate", "blocks handed over", "k/s")),
        first_cpu(series(setting, id, label, "first_cpu", "filling side, CPU a block", "us")),
        second_cpu(series(setting, id, label, "second_cpu", "reading side, CPU a block", "us")) {}

  void add(const BothTimes& times, std::uint64_t blocks) {
    const auto count = static_cast<double>(blocks);
    rate.add(count / times.seconds() * 1e-3);
    first_cpu.add(times.first.cpu_seconds / count * 1e6);
    second_cpu.add(times.second.cpu_seconds / count * 1e6);
  }

 private:
  static Series series(const std::string& setting, const char* id, const char* label,
                       const char* quantity, const char* meaning, const char* unit) {
    return {fmt::format("{}_{}_{}", setting, id, quantity),
            fmt::format("{}: {}", label, meaning),
            unit,
            {}};
  }
};

/// One way of asking and answering, in one setting.
struct RoundTrip {
  Series time;
  Series sleeps;

  RoundTrip(Apart apart, const char* id, const char* label)
      : time{fmt::format("{}_round_trip_{}", name_of(apart), id), label, "us", {}},
        sleeps{fmt::format("{}_round_trip_{}_sleeps", name_of(apart), id),
               fmt::format("{}: sleeps of each side", label),
               "",
               {}} {}

  void add(const BothTimes& times, std::uint64_t count) {
    const auto trips = static_cast<double>(count);
    time.add(times.seconds() / trips * 1e6);
    sleeps.add(static_cast<double>(times.first.sleeps + times.second.sleeps) / 2 / trips);
  }
};

/// What stands below one heading.
template <class Row>
struct Table {
  std::string heading;
  std::deque<Row> rows;  ///< their addresses stay
};

class RingBenchmark {
 public:
  explicit RingBenchmark(const Options& options) : options_(options) {
    for (const Apart apart : {Apart::processes, Apart::threads}) {
      for (const std::size_t kib : options.block_kib) add_streams(apart, kib << 10);
      add_turns(apart);
      add_round_trips(apart);
    }
  }

  bench::Report run() {
    for (int round = 0; round < options_.rounds; ++round) {
      for (const auto& measure : measurements_) {
        if (::isatty(STDERR_FILENO) == 1) {
          fmt::print(stderr, "\r\033[Kround {}/{}", round + 1, options_.rounds);
        }
        measure();
      }
      // What comes first and what comes after what must not matter.
      std::reverse(measurements_.begin(), measurements_.end());
    }
    if (::isatty(STDERR_FILENO) == 1) fmt::print(stderr, "\r\033[K");
    return make_report();
  }

 private:
  static Shape shape_of(std::size_t block_bytes) {
    const std::uint64_t fitting =
        block_bytes == 0 ? bench::SpscChannel::kCapacity : kSharedBytes / block_bytes;
    return {block_bytes, static_cast<std::uint32_t>(std::clamp<std::uint64_t>(
                             fitting, kLeastSlots, bench::SpscChannel::kCapacity))};
  }

  /// @param make makes the channel
  template <class Make>
  Stream& add_stream(Table<Stream>& table, const std::string& setting, const char* id,
                     const char* label, Apart apart, Shape shape, Make make) {
    Stream& row = table.rows.emplace_back(setting, id, label);
    const std::uint64_t blocks =
        shape.block_bytes == 0
            ? options_.blocks
            : std::clamp(kStreamBytes / shape.block_bytes, std::min(kLeastBlocks, options_.blocks),
                         options_.blocks);
    measurements_.emplace_back([&row, apart, make, blocks, warm = 2ull * shape.slots] {
      auto channel = make();
      row.add(bench::time_steps(channel, apart, {warm, blocks}), blocks);
    });
    return row;
  }

  void add_streams(Apart apart, std::size_t block_bytes) {
    Table<Stream>& table = streams_.emplace_back();
    table.heading = fmt::format("Two {}, {}", name_of(apart), size_in_words(block_bytes));
    const std::string setting = fmt::format("{}_{}kib", name_of(apart), block_bytes >> 10);
    const Shape shape = shape_of(block_bytes);
    const auto add = [&](const char* id, const char* label, auto make) -> Stream& {
      return add_stream(table, setting, id, label, apart, shape, make);
    };
    const Stream& ring =
        add("ring", "ring", [shape] { return bench::RingChannel(shape, Wait::sleep); });
    if (apart == Apart::processes && block_bytes == 0) add_goals(ring, "streaming", "streaming");
    add("ring_spinning", "ring, spinning",
        [shape] { return bench::RingChannel(shape, Wait::spin); });
    add("spsc", "spsc_queue, spinning", [shape] { return bench::SpscChannel(shape); });
    add("message_queue", "message_queue", [shape] { return bench::MessageQueueChannel(shape); });
    add("pipe", "pipe", [shape] { return bench::DescriptorChannel(shape, bench::make_pipe()); });
    add("socket", "Unix socket",
        [shape] { return bench::DescriptorChannel(shape, bench::make_socket()); });
  }

  /// @param make makes the channel
  template <class Make>
  Stream& add_turn(Table<Stream>& table, const char* id, const char* label, Apart apart,
                   Make make) {
    Stream& row = table.rows.emplace_back(fmt::format("{}_in_turns", name_of(apart)), id, label);
    const std::uint64_t steps = shape_of(0).slots;
    const std::uint64_t count = std::max<std::uint64_t>(1, options_.blocks / steps);
    measurements_.emplace_back([&row, apart, make, count, steps] {
      auto channel = make();
      row.add(bench::time_in_turns(channel, apart, {count, steps}), count * steps);
    });
    return row;
  }

  void add_turns(Apart apart) {
    Table<Stream>& table = turns_.emplace_back();
    const Shape shape = shape_of(0);
    table.heading = fmt::format("Two {} in turns: {} empty blocks one way, then the other side",
                                name_of(apart), shape.slots);
    const Stream& ring = add_turn(table, "ring", "ring", apart,
                                  [shape] { return bench::RingChannel(shape, Wait::sleep); });
    if (apart == Apart::processes) add_goals(ring, "in_turns", "in turns");
    add_turn(table, "spsc", "spsc_queue", apart, [shape] { return bench::SpscChannel(shape); });
    add_turn(table, "message_queue", "message_queue", apart,
             [shape] { return bench::MessageQueueChannel(shape); });
  }

  /// @param make makes the channel
  template <class Make>
  RoundTrip& add_round_trip(Table<RoundTrip>& table, const char* id, const char* label, Apart apart,
                            std::uint64_t count, Make make) {
    RoundTrip& row = table.rows.emplace_back(apart, id, label);
    measurements_.emplace_back([&row, apart, make, count, warm = count / 10 + 1] {
      auto channel = make();
      row.add(bench::time_steps(channel, apart, {warm, count}), count);
    });
    return row;
  }

  void add_round_trips(Apart apart) {
    Table<RoundTrip>& table = round_trips_.emplace_back();
    table.heading = fmt::format("Two {}, an empty block and its answer", name_of(apart));
    const std::uint64_t spins = options_.blocks;
    const std::uint64_t sleeps = std::max<std::uint64_t>(1, spins / kSpinsPerSleep);
    const auto add_sleeping = [&](const char* id, const char* label, auto make) -> RoundTrip& {
      return add_round_trip(table, id, label, apart, sleeps, make);
    };
    const auto descriptors = [](DescriptorPingPong::Over over, DescriptorPingPong::Sleep sleep) {
      return [over, sleep] { return DescriptorPingPong(over, sleep); };
    };
    // Two slots, one of them always with the side that answers.
    const RoundTrip& ring = add_sleeping("ring", "ring, sleeping", [] {
      return bench::RingChannel({0, 2}, Wait::sleep, true);
    });
    using Over = DescriptorPingPong::Over;
    using Sleep = DescriptorPingPong::Sleep;
    const RoundTrip& in_read = add_sleeping("eventfd", "eventfd, sleeping in read",
                                            descriptors(Over::eventfds, Sleep::in_read));
    const RoundTrip& in_poll = add_sleeping("eventfd_poll", "eventfd, sleeping in poll",
                                            descriptors(Over::eventfds, Sleep::in_poll));
    if (apart == Apart::processes) {
      add_goal(ring, in_read, "round_trip_to_eventfd", "eventfd in read");
      add_goal(ring, in_poll, "round_trip_to_eventfd_poll", "eventfd in poll");
    }
    add_sleeping("message_queue", "message_queue, sleeping",
                 [] { return bench::MessageQueuePingPong(); });
    add_sleeping("pipe", "pipe, sleeping", descriptors(Over::pipes, Sleep::in_read));
    add_sleeping("socket", "Unix socket, sleeping", descriptors(Over::sockets, Sleep::in_read));
    add_round_trip(table, "ring_spinning", "ring, spinning", apart, spins, [] {
      return bench::RingChannel({0, 2}, Wait::spin, true);
    });
    add_round_trip(table, "spsc", "spsc_queue, spinning", apart, spins,
                   [] { return bench::SpscPingPong(); });
  }

  /// What the ring costs each side.
  void add_goals(const Stream& ring, const char* id, const char* how) {
    const auto add = [&](const char* side, const char* does, const Series& cpu) {
      goals_.emplace_back([&cpu, name = fmt::format("{}_{}_cpu", id, side),
                           label = fmt::format("CPU an empty block, {}, {} side", how, does)] {
        return Goal{Series{name, label, cpu.unit, cpu.samples}, Goal::Kind::at_most, 0.5};
      });
    };
    add("first", "filling", ring.first_cpu);
    add("second", "reading", ring.second_cpu);
  }

  /// How long an answer through the ring takes, to one beside it.
  void add_goal(const RoundTrip& ring, const RoundTrip& beside, const char* id, const char* to) {
    goals_.emplace_back(
        [&ring, &beside, id, label = fmt::format("sleeping round trip, to {}", to)] {
          return Goal{Series{id, label, "x", bench::ratios(ring.time, beside.time)},
                      Goal::Kind::at_most, 1.3};
        });
  }

  bench::Report make_report() const {
    bench::Report report("ring", {{"rounds", options_.rounds},
                                  {"blocks", options_.blocks},
                                  {"block_kib", options_.block_kib},
                                  {"processors", bench::processors_of_sides()}});
    for (const Table<Stream>& table : streams_) {
      report.heading(table.heading);
      for (const Stream& row : table.rows) report.add(row.rate);
      add_cpu(report, table);
    }
    // Without rates: most of the time goes into changing turns.
    for (const Table<Stream>& table : turns_) {
      report.heading(table.heading);
      add_cpu(report, table);
    }
    for (const Table<RoundTrip>& table : round_trips_) {
      report.heading(table.heading);
      for (const RoundTrip& row : table.rows) report.add(row.time);
      report.add(table.rows.front().sleeps);
    }
    for (const auto& goal : goals_) report.add(goal());
    report.note("each side has a processor of its own; goals are for two processes");
    report.note("a side that spins uses its processor whether or not it hands anything over");
    report.note("message_queue, pipe and socket carry 8 bytes for an empty block");
    return report;
  }

  static void add_cpu(bench::Report& report, const Table<Stream>& table) {
    for (const Stream& row : table.rows) {
      report.add(row.first_cpu);
      report.add(row.second_cpu);
    }
  }

  Options options_;
  std::deque<Table<Stream>> streams_;
  std::deque<Table<Stream>> turns_;
  std::deque<Table<RoundTrip>> round_trips_;
  std::vector<std::function<void()>> measurements_;
  std::vector<std::function<Goal()>> goals_;
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  return bench::run_command(
      argc, argv,
      {.name = "bench_ring",
       .description = "What it costs to hand a block over, between threads and processes",
       .add_options =
           [&](CLI::App& app) {
             app.add_option("--rounds", options.rounds,
                            "rounds in which everything is measured once")
                 ->check(CLI::Range(1, 1000))
                 ->capture_default_str();
             app.add_option("--blocks", options.blocks,
                            "empty blocks for each measurement; fewer of the large ones")
                 ->check(CLI::Range(100, 100'000'000))
                 ->capture_default_str();
             app.add_option("--sizes", options.block_kib,
                            "of blocks, in KiB, multiples of 4; 0: not touched")
                 ->check(CLI::Range(0, 65536))
                 ->capture_default_str();
           },
       .measure = [&](const std::string&,
                      bench::NumbersFile&) { return RingBenchmark(options).run(); },
       .goals_must_be_reached = false});
}
