// What goes wrong is said at once, with the key or path concerned; what was there stays.
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ATen/ops/_neg_view.h>
#include <ATen/ops/quantize_per_tensor.h>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "contract/contract.h"
#include "contract/odd_tensors.h"
#include "contract/states.h"
#include "support/colliding_ints.h"
#include "support/launch_environment.h"

namespace ckptring::test {
namespace {

using testing::HasSubstr;

class Errors : public Contract {};
CKPTRING_ALL_PATHS(Errors);

TEST_P(Errors, WhatIsNotThereIsNotFound) {
  const Error error = error_of([&] { (void)checkpointer->load(directory / "nothing"); });
  EXPECT_EQ(error.code(), ErrorCode::not_found);
  EXPECT_THAT(error.what(), HasSubstr(directory / "nothing"));
  std::filesystem::create_directory(directory / "empty");
  const Error empty = error_of([&] { (void)checkpointer->load(directory / "empty"); });
  EXPECT_EQ(empty.code(), ErrorCode::not_found);
  EXPECT_THAT(empty.what(), HasSubstr("empty/checkpoint_0.pt"));
}

TEST_P(Errors, WhatIsNoCheckpointIsDamaged) {
  std::ofstream(directory / "text") << "this is a text";
  EXPECT_EQ(error_of([&] { (void)checkpointer->load(directory / "text"); }).code(),
            ErrorCode::damaged);
  std::ofstream(directory / "empty").close();
  EXPECT_EQ(error_of([&] { (void)checkpointer->load(directory / "empty"); }).code(),
            ErrorCode::damaged);
}

TEST_P(Errors, ATruncatedFileIsDamaged) {
  const SaveReport report = save("it", sample_state());
  for (const std::uint64_t left : {report.bytes - 1, report.bytes / 2, std::uint64_t{100}}) {
    std::filesystem::copy_file(report.path, directory / "short",
                               std::filesystem::copy_options::overwrite_existing);
    std::filesystem::resize_file(directory / "short", left);
    EXPECT_EQ(error_of([&] { (void)checkpointer->load(directory / "short"); }).code(),
              ErrorCode::damaged)
        << left;
  }
}

TEST_P(Errors, WhatCannotBeStoredIsNamedBeforeAnythingIsWritten) {
  StateDict cyclic = make_state_dict();
  cyclic.insert_or_assign("again", cyclic);
  at::Tensor shrunk = at::ones({100});
  shrunk.storage().unsafeGetStorageImpl()->set_nbytes(8);
  StateDict bool_key = make_state_dict();
  bool_key.insert_or_assign(true, 1);
  StateDict bad_key = make_state_dict();
  bad_key.insert_or_assign("\xff", 1);
  // A dict as large as this one holds them; one that grows as they come does not.
  StateDict colliding = make_state_dict();
  colliding.reserve(1 << 18);
  for (std::uint64_t i = 0; i < 15; ++i) {
    colliding.insert_or_assign(static_cast<std::int64_t>(colliding_int(i)), 1);
  }
  const std::vector<std::pair<IValue, std::string>> cases = {
      {colliding, "keys of a dict are such"},
      {at::ones({2, 2}).to_sparse(), "Sparse"},
      {at::quantize_per_tensor(at::ones({2}), 0.1, 0, c10::kQInt8), "quantized"},
      {at::empty({2}, c10::kMeta), "meta"},
      {std::string("\xc3\x28"), "UTF-8"},
      {bad_key, "UTF-8"},
      {bool_key, "Bool"},
      {c10::complex<double>(1, 2), "Complex"},
      {c10::Device(c10::kCPU), "Device"},
      {cyclic, "contains itself"},
      {shrunk, "number 99 of a storage of 2"},
      {nested_tensor(), "nested"},
      {shapeless_tensor(), "there are no sizes"},
      {freed_tensor(), "number 3 of a storage of 0"},
      {at::ones({1}).expand({std::int64_t{1} << 62}), "its size overflows 64 bits"},
      {at::_neg_view(at::zeros({2}, c10::kBool)), "it is bool and negated"},
  };
  for (const auto& [value, cause] : cases) {
    const StateDict state = dict({{"ok", 1}, {"a", dict({{"b", list({dict({{"c", value}})})}})}});
    const Error error = error_of([&] { (void)checkpointer->save(directory / "it", state); });
    EXPECT_EQ(error.code(), ErrorCode::unsupported_value) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("a.b[0].c"));
    EXPECT_THAT(error.what(), HasSubstr(cause));
    EXPECT_THAT(error.what(), HasSubstr(directory / "it"));
    EXPECT_THAT(error.what(), testing::Not(HasSubstr("\n")));
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
  cyclic.clear();  // or it would never be freed
  save("it", dict({{"x", 1}}));
}

TEST_P(Errors, AsManyLevelsAsCanBeStoredCanBeLoadedAndOneMoreIsRefused) {
  // The innermost list holds a tensor with a lazy bit: a dict in the file, though not in the state.
  IValue nested = list({at::_conj(noise({2}, c10::kInt).to(c10::kComplexFloat))});
  for (int level = 2; level < 512; ++level) nested = list({nested});
  save("it", dict({{"deep", nested}}));
  expect_equal(nested, checkpointer->load(directory / "it").state.at("deep"), "deep");
  const Error error = error_of([&] { save("more", dict({{"deep", list({nested})}})); });
  EXPECT_EQ(error.code(), ErrorCode::unsupported_value);
  EXPECT_THAT(error.what(), HasSubstr("nested more than 512 deep"));
}

TEST_P(Errors, ATensorOfAnyNumberOfDimensionsIsLoadedAgain) {
  std::vector<std::int64_t> sizes(2000, 1);
  sizes[0] = 2;
  sizes[1999] = 3;
  const at::Tensor tensor = noise({2, 3}, c10::kFloat).view(sizes);
  save("it", dict({{"w", tensor}}));
  const at::Tensor loaded = tensor_at(checkpointer->load(directory / "it").state, "w");
  EXPECT_EQ(loaded.sizes(), tensor.sizes());
  EXPECT_EQ(std::memcmp(loaded.const_data_ptr(), tensor.const_data_ptr(), tensor.nbytes()), 0);
  // Into one of another layout as well.
  const at::Tensor mine = at::zeros({3, 2}).t().view(sizes);
  checkpointer->load(directory / "it", dict({{"w", mine}}));
  EXPECT_EQ(bits(mine.view({2, 3})), bits(tensor.view({2, 3})));
}

TEST_P(Errors, BadArgumentsAreRefused) {
  const auto code = [&](const std::string& path, const SaveOptions& options) {
    return error_of([&] { (void)checkpointer->save(path, dict({}), options); }).code();
  };
  EXPECT_EQ(code("", {}), ErrorCode::invalid_argument);
  EXPECT_EQ(code(directory / "it", {.step = {}, .metadata = {{"name", "\xff"}}}),
            ErrorCode::invalid_argument);
}

TEST_P(Errors, APathThroughAFileIsRefusedAtOnce) {
  std::ofstream(directory / "file") << "in the way";
  for (const char* path : {"file", "file/deeper"}) {
    const Error error = error_of([&] {
      (void)checkpointer->save(directory / path, dict({{"x", 1}}));
    });
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_THAT(error.what(), HasSubstr(directory / "file"));
  }
  const SaveHandle next = checkpointer->save(directory / "it", dict({{"x", 1}}));
  EXPECT_EQ(next.previous_failure, nullptr);
  next.written.get();
}

TEST_P(Errors, APathThatCannotBeLookedAtFailsItsOwnFuture) {
  std::filesystem::create_symlink("loop", directory / "loop");
  const SaveHandle failed = checkpointer->save(directory / "loop/it", placed(sample_state()));
  const Error error = error_of([&] { failed.written.get(); });
  EXPECT_EQ(error.errno_value(), ELOOP) << error.what();
  EXPECT_NE(failed.staged.error(), nullptr);
  EXPECT_THAT(error.what(), HasSubstr(directory / "loop/it"));
  save("it", dict({{"x", 1}}));
}

TEST_P(Errors, ALinkThatLeadsToNothingIsNamedAndFailsItsOwnFuture) {
  std::filesystem::create_symlink("nothing", directory / "link");
  const std::string words = directory / "link is a symbolic link, and leads to nothing";
  for (const char* path : {"link", "link/deeper/it"}) {
    const SaveHandle failed = checkpointer->save(directory / path, placed(sample_state()));
    const Error error = error_of([&] { failed.written.get(); });
    EXPECT_EQ(error.code(), ErrorCode::not_found) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(directory / path));
    EXPECT_THAT(error.what(), HasSubstr(words));
    EXPECT_NE(failed.staged.error(), nullptr);
    const Error of_load = error_of([&] { (void)checkpointer->load(directory / path); });
    EXPECT_EQ(of_load.code(), ErrorCode::not_found) << of_load.what();
    EXPECT_THAT(of_load.what(), HasSubstr(words));
  }
  EXPECT_TRUE(std::filesystem::is_symlink(directory / "link"));
  save("it", dict({{"x", 1}}));
}

TEST_P(Errors, AForcedWayToWriteThatDoesNotWorkFailsItsOwnFuture) {
  const char* const memory = "/dev/shm";  // no file system that waits for direct writes
  if (::access(memory, W_OK) != 0) GTEST_SKIP() << memory << " cannot be written to";
  if (GetParam() == Path::sync_custom || GetParam() == Path::async_custom) {
    GTEST_SKIP() << "custom writers have no such modes";
  }
  const TemporaryDirectory in_memory(memory);
  CheckpointerConfig config = small_ring();
  config.writer_config.mode = WriteMode::direct_threads;
  const auto forced = make_checkpointer(GetParam(), config);
  const SaveHandle failed = forced->save(in_memory / "it", placed(sample_state()));
  const Error error = error_of([&] { failed.written.get(); });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
  EXPECT_THAT(error.what(), HasSubstr("direct_threads does not work here"));
  EXPECT_TRUE(std::filesystem::is_empty(in_memory.path()));
}

TEST_P(Errors, ImpossibleRanksAreRefused) {
  for (const RankInfo rank : {RankInfo{-1, 1}, RankInfo{1, 1}, RankInfo{0, 0}, RankInfo{0, -3}}) {
    EXPECT_EQ(error_of([&] { make_checkpointer(GetParam(), small_ring(), rank); }).code(),
              ErrorCode::invalid_argument);
  }
}

TEST_P(Errors, ImpossibleWriterSettingsAreRefused) {
  for (const auto change : {+[](CheckpointWriterConfig& c) { c.queue_depth = 0; },
                            +[](CheckpointWriterConfig& c) { c.queue_depth = 65; },
                            +[](CheckpointWriterConfig& c) { c.threads = 0; },
                            +[](CheckpointWriterConfig& c) { c.busy_timeout_secs = -1; }}) {
    CheckpointerConfig config = small_ring();
    change(config.writer_config);
    EXPECT_EQ(error_of([&] { make_checkpointer(GetParam(), config); }).code(),
              ErrorCode::invalid_argument);
  }
}

TEST_P(Errors, AfterCloseNothingWorksButClosing) {
  save("it", dict({{"x", 1}}));
  checkpointer->close();
  checkpointer->close();
  EXPECT_EQ(error_of([&] { (void)checkpointer->save(directory / "it", dict({})); }).code(),
            ErrorCode::closed);
  EXPECT_EQ(error_of([&] { (void)checkpointer->load(directory / "it"); }).code(),
            ErrorCode::closed);
  EXPECT_EQ(CheckpointReader().read(directory / "it").state.at("x").toInt(), 1);
}

TEST_P(Errors, AFailedWriteFailsItsOwnFutureAndTheNextSaveWorks) {
  const StateDict before = sample_state(1);
  save("it", before);
  const SaveHandle failed = checkpointer->save(kUnwritable, placed(sample_state(2)));
  const Error error = error_of([&] { failed.written.get(); });
  EXPECT_THAT(error.what(), HasSubstr(kUnwritable));
  const SaveHandle next = checkpointer->save(directory / "next", placed(sample_state(3)));
  next.written.get();
  EXPECT_EQ(next.previous_failure, nullptr);  // it was fetched
  expect_equal(before, checkpointer->load(directory / "it").state, "state");
  expect_equal(sample_state(3), checkpointer->load(directory / "next").state, "state");
}

TEST_P(Errors, AFailureThatNobodyFetchedIsHandedOverOnce) {
  const SaveHandle failed = checkpointer->save(kUnwritable, placed(sample_state()));
  failed.written.wait();
  const SaveHandle next = checkpointer->save(directory / "a", dict({{"x", 1}}));
  EXPECT_NE(next.previous_failure, nullptr);
  next.written.get();
  EXPECT_EQ(checkpointer->save(directory / "b", dict({{"x", 1}})).previous_failure, nullptr);
}

TEST_P(Errors, AFailureThatNobodyFetchedIsThrownBeforeTheNextSaveIfAskedFor) {
  CheckpointerConfig config = small_ring();
  config.throw_previous_failure = true;
  const auto throwing = make_checkpointer(GetParam(), config);
  (void)throwing->save(kUnwritable, placed(sample_state()));
  const auto saved_to = [&](const char* name) { (void)throwing->save(directory / name, dict({})); };
  EXPECT_THAT(error_of([&] { saved_to("a"); }).what(), HasSubstr(kUnwritable));
  EXPECT_FALSE(std::filesystem::exists(directory / "a"));
  EXPECT_NO_THROW(saved_to("b"));
}

TEST_P(Errors, AForkedChildIsRefused) {
  save("it", dict({{"x", 1}}));
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto refused = [](auto call) {
      try {
        call();
      } catch (const Error& error) {
        return error.code() == ErrorCode::wrong_process;
      }
      return false;
    };
    const bool right = refused([&] { (void)checkpointer->save(directory / "child", dict({})); }) &&
                       refused([&] { (void)checkpointer->load(directory / "it"); }) &&
                       refused([&] { checkpointer->close(); });
    checkpointer.reset();  // does nothing, in particular not hang
    ::_exit(right ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  save("after", dict({{"x", 2}}));
  EXPECT_EQ(checkpointer->load(directory / "after").state.at("x").toInt(), 2);
}

TEST(DefaultRank, IsTheOnlyOneWithoutALauncher) {
  const LaunchEnvironment nobody;
  EXPECT_EQ(default_rank_info().global_rank, 0);
  EXPECT_EQ(default_rank_info().global_world_size, 1);
}

TEST(DefaultRank, IsWhatTheLauncherSays) {
  for (const char* prefix : {"", "OMPI_COMM_WORLD_", "PMI_"}) {
    const std::string size = *prefix == '\0' ? "WORLD_SIZE" : prefix + std::string("SIZE");
    const LaunchEnvironment launch{{prefix + std::string("RANK"), "3"}, {size, "8"}};
    EXPECT_EQ(default_rank_info().global_rank, 3);
    EXPECT_EQ(default_rank_info().global_world_size, 8);
  }
}

TEST(DefaultRank, MustMakeSense) {
  for (const auto& [rank, size] :
       {std::pair{"8", "8"}, {"-1", "8"}, {"x", "8"}, {"1 ", "8"}, {"0", "0"}, {"0", ""}}) {
    const LaunchEnvironment launch{{"RANK", rank}, {"WORLD_SIZE", size}};
    EXPECT_EQ(error_of([] { (void)default_rank_info(); }).code(), ErrorCode::invalid_argument)
        << rank << " of " << size;
    EXPECT_EQ(error_of([] { (void)make_sync_checkpointer(); }).code(), ErrorCode::invalid_argument);
    EXPECT_EQ(error_of([] { (void)make_async_checkpointer(); }).code(),
              ErrorCode::invalid_argument);
  }
}

}  // namespace
}  // namespace ckptring::test
