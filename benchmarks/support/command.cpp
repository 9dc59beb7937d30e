#include "support/command.h"

#include "support/progress.h"

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
    const Report report = command.measure(directory);
    end_progress();
    report.print();
    if (!json.empty()) report.write_json(json);
    return command.goals_must_be_reached && !report.goals_reached() ? 2 : 0;
  } catch (const std::exception& error) {
    end_progress();
    (void)std::fprintf(stderr, "%s: %s\n", command.name.c_str(), error.what());
    return 1;
  }
}

}  // namespace bench
