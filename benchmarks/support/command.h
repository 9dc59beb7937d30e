// The main function of a benchmark: its options, its table, its JSON file.
#pragma once

#include "support/numbers_file.h"
#include "support/progress.h"
#include "support/report.h"

#include <CLI/CLI.hpp>

#include <functional>
#include <string>

namespace bench {

/// What `run_command` runs.
struct Command {
  std::string name;         ///< of the executable, for its errors
  std::string description;  ///< for --help
  std::function<void(CLI::App&)> add_options;
  /// `directory`: see WorkDirectory. `numbers`: for what is there so far.
  std::function<Report(const std::string& directory, NumbersFile& numbers)> measure;
  bool goals_must_be_reached = false;  ///< else a goal that was missed is a line of the table
};

/// Parses, with --directory and --json besides the command's own options, measures, prints the
/// table and writes the JSON file.
/// @return 0; 1 after an error, which it prints; 2 if a goal that must be reached was missed
int run_command(int argc, char** argv, const Command& command);

/// The same for a benchmark that takes long: SIGINT and SIGTERM end it, see `watch_interrupts`. Its
/// goals may be missed. `Benchmark` is made of its options, the directory and the numbers' file,
/// and is measured by its function `run`.
template <class Benchmark, class Options>
int run_benchmark(int argc, char** argv, const std::string& name, const std::string& description,
                  void (*add_options)(CLI::App&, Options&)) {
  watch_interrupts();
  Options options;
  return run_command(argc, argv,
                     {.name = name,
                      .description = description,
                      .add_options = [&](CLI::App& app) { add_options(app, options); },
                      .measure =
                          [&](const std::string& directory, NumbersFile& numbers) {
                            return Benchmark(options, directory, numbers).run();
                          },
                      .goals_must_be_reached = false});
}

}  // namespace bench
