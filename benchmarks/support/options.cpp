#include "support/options.h"

namespace bench {

void add_times_option(CLI::App& app, const std::string& name, int& times, const std::string& text) {
  add_option(app, name, times, CLI::Range(1, 1000), text);
}

void add_scale_option(CLI::App& app, double& scale, const std::string& what) {
  add_option(app, "--scale", scale, CLI::Range(0.001, 16.0),
             "share of " + what + " size, for quick runs");
}

void add_threads_option(CLI::App& app, const std::string& name, unsigned& threads,
                        const std::string& text) {
  app.add_option(name, threads, text)->check(CLI::Range(1, 256));
}

void add_peers_option(CLI::App& app, PeerOptions& peers, const std::string& text) {
  app.add_option("--peers", peers.names, text)->delimiter(',')->capture_default_str();
}

void add_python_option(CLI::App& app, PeerOptions& peers, const std::string& packages) {
  app.add_option("--python", peers.python, "with " + packages + ", for the peers")
      ->capture_default_str();
}

void add_fio_option(CLI::App& app, bool& with_fio) {
  app.add_flag("!--no-fio", with_fio, "leave fio out");
}

}  // namespace bench
