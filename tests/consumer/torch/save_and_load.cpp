// Saves a state asynchronously and loads it back, with nothing but the installed headers.
#include <ckptring/checkpointer.h>

#include <ATen/ATen.h>

#include <iostream>
#include <string>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: save_and_load DIR\n";
    return 64;
  }
  const std::string directory = std::string(argv[1]) + "/step_7";
  try {
    auto weights = at::arange(1 << 20, at::kFloat).reshape({1024, 1024});
    auto state = ckptring::make_state_dict();
    state.insert_or_assign("weights", weights);
    state.insert_or_assign("epoch", std::int64_t{3});

    auto checkpointer = ckptring::make_async_checkpointer();
    const auto save = checkpointer->save(directory, state, {.step = 7, .metadata = {}});
    save.staged.wait();
    const auto report = save.written.get();
    std::cout << "wrote " << report.bytes << " bytes to " << report.path << '\n';

    const auto found = ckptring::latest(argv[1]);
    if (!found || found->step != 7) {
      std::cerr << "latest did not find step 7\n";
      return 1;
    }
    const auto loaded = checkpointer->load(found->path);
    if (!loaded.state.at("weights").toTensor().equal(weights) ||
        loaded.state.at("epoch").toInt() != 3) {
      std::cerr << "what was loaded differs from what was saved\n";
      return 1;
    }
    checkpointer->close();
  } catch (const ckptring::Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
