// The ckptring command: looks into checkpoints, checks them, tidies up after crashes.
//
// Exit code 0: all is well; 1: a file is damaged; 2: wrong usage, or something could not be read.
#include "checkpoint_files.h"
#include "inspect.h"
#include "output.h"
#include "verify.h"
#include "words.h"

#include "os/new_fd.h"

#include <ckptring/checkpoints.h>
#include <ckptring/error.h>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>

namespace ckptring::command {
namespace {

constexpr int kDamaged = 1;
constexpr int kFailed = 2;

int fail(std::string_view what, int exit_code) {
  fmt::print(stderr, "ckptring: {}\n", printable(what));
  return exit_code;
}

std::string clean_and_tell(const std::string& directory, double min_age_secs) {
  const CleanResult result = clean(directory, min_age_secs);
  std::string out;
  for (const std::string& path : result.removed) out += "removed " + printable(path) + "\n";
  for (const std::string& path : result.in_use) {
    out += "kept, may be in use: " + printable(path) + "\n";
  }
  return out + count(result.removed.size(), "leftover") + " removed\n";
}

int run(int argc, char** argv) {
  CLI::App app{"Looks into checkpoints, checks them, and tidies up after crashes."};
  app.name("ckptring");
  app.set_version_flag("--version", CKPTRING_VERSION);
  app.require_subcommand(1);

  std::string path;
  const std::string path_help = "a .pt file, or a checkpoint directory: all checkpoint_*.pt in it";
  bool json = false;
  CLI::App* const inspecting =
      app.add_subcommand("inspect", "Show the tensors, totals and metadata; reads no payload.");
  inspecting->add_option("PATH", path, path_help)->required();
  inspecting->add_flag("--json", json, "print one JSON document");

  CLI::App* const verifying =
      app.add_subcommand("verify", "Read everything and compare with the checksums.");
  verifying->add_option("PATH", path, path_help)->required();

  double min_age_secs = 3600;
  CLI::App* const cleaning = app.add_subcommand(
      "clean", "Remove hidden temporaries that killed processes left below a directory.");
  cleaning->add_option("DIR", path, "where to look, in all directories below as well")->required();
  cleaning->add_option("--min-age", min_age_secs, "only what is as old as this, in seconds")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help_or_version) {
    return app.exit(help_or_version);
  } catch (const CLI::ParseError& error) {
    return fail(std::string(error.what()) + "; ckptring --help tells more", kFailed);
  }

  try {
    if (inspecting->parsed()) {
      inspect(checkpoint_files(path), json);
    } else if (verifying->parsed()) {
      if (!verify(checkpoint_files(path))) return kDamaged;
    } else {
      print(clean_and_tell(path, min_age_secs));
    }
    return 0;
  } catch (const Error& error) {
    return fail(error.what(), error.code() == ErrorCode::damaged ? kDamaged : kFailed);
  } catch (const std::exception& error) {
    return fail(error.what(), kFailed);
  }
}

}  // namespace
}  // namespace ckptring::command

int main(int argc, char** argv) try {
  ckptring::os::reserve_standard_numbers();
  return ckptring::command::run(argc, argv);
} catch (const std::exception& error) {
  (void)std::fprintf(stderr, "ckptring: %s\n", error.what());
  return ckptring::command::kFailed;
}
