#include "support/command.h"

#include <cstdio>
#include <exception>

namespace bench {

int run_command(int argc, char** argv, const Command& command) {
  try {
    std::string directory;
    std::string json;
    CLI::App app(command.description);
    command.add_options(app);
    app.add_option("--directory", directory, "to write below (default: $TMPDIR, else /tmp)");
    app.add_option("--json", json, "file for the numbers");
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      return app.exit(error);
    }
    NumbersFile numbers(json);
    try {
      const Report report = command.measure(directory, numbers);
      end_progress();
      report.print();
      numbers.write(report);
      return command.goals_must_be_reached && !report.goals_reached() ? 2 : 0;
    } catch (...) {
      end_progress();
      if (!numbers.so_far().empty()) {
        (void)std::fprintf(stderr, "%s: %s has %s\n", command.name.c_str(), json.c_str(),
                           numbers.so_far().c_str());
      }
      throw;
    }
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "%s: %s\n", command.name.c_str(), error.what());
    return 1;
  }
}

}  // namespace bench
