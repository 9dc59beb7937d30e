// Options that several benchmarks have: the same name means the same everywhere.
#pragma once

#include <CLI/CLI.hpp>

#include <string>
#include <vector>

namespace bench {

/// One with a default, which --help shows. `value` outlives the parsing, as for all below.
template <class Value>
void add_option(CLI::App& app, const std::string& name, Value& value, const CLI::Validator& valid,
                const std::string& text) {
  app.add_option(name, value, text)->check(valid)->capture_default_str();
}

/// --rounds, --pairs and what else is done so many times.
void add_times_option(CLI::App& app, const std::string& name, int& times, const std::string& text);

/// --scale: of the size of `what`.
void add_scale_option(CLI::App& app, double& scale, const std::string& what);

/// Of a thread count whose default is decided later, 0 until then. `text` says which it is.
void add_threads_option(CLI::App& app, const std::string& name, unsigned& threads,
                        const std::string& text);

/// Whom to compare with.
struct PeerOptions {
  std::vector<std::string> names{"all"};  ///< see `chosen_peers`
  std::string python;                     ///< the interpreter that runs them
};

/// --peers. `text` says which names there are.
void add_peers_option(CLI::App& app, PeerOptions& peers, const std::string& text);
/// --python. `packages`: what it has to have.
void add_python_option(CLI::App& app, PeerOptions& peers, const std::string& packages);

/// --no-fio
void add_fio_option(CLI::App& app, bool& with_fio);

}  // namespace bench
