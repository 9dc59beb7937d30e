// What a launcher starts several of: saves twice, by both paths, as the rank that it finds.
//
// usage: launched_trainer DIRECTORY
#include <ckptring/checkpointer.h>
#include <ckptring/log.h>

#include <cstdio>
#include <exception>
#include <string>

int main(int argc, char** argv) {
  if (argc != 2) return 64;
  const std::string directory = argv[1];
  try {
    const ckptring::RankInfo rank = ckptring::default_rank_info();
    ckptring::StateDict state = ckptring::make_state_dict();
    state.insert_or_assign("rank", rank.global_rank);
    const auto async = ckptring::make_async_checkpointer();
    (void)async->save(directory + "/step_1", state, {.step = 1}).written.get();
    const auto sync = ckptring::make_sync_checkpointer();
    (void)sync->save(directory + "/step_2", state, {.step = 2}).written.get();
    std::printf("rank %d of %d\n", rank.global_rank, rank.global_world_size);
    return 0;
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
}
