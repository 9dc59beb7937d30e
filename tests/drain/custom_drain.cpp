// A helper program with a writer and a hook of its own. CUSTOM_DRAIN of the environment says how
// it behaves: "write" (to FINAL.custom), "slow" (and says at the end that it has written), "hang",
// "die", "die-committed", "throw", "no-stderr", "hook-notes", "hook-refuses".
#include <ckptring/drain.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>

namespace {

std::string behaviour() {
  const char* const text = std::getenv("CUSTOM_DRAIN");
  return text == nullptr ? "write" : text;
}

class Writer : public ckptring::CheckpointWriter {
 public:
  void begin(const ckptring::CheckpointDescription& checkpoint) override {
    final_path_ = checkpoint.final_path + ".custom";
    out_.open(checkpoint.directory + "/.partial", std::ios::binary);
    partial_ = checkpoint.directory + "/.partial";
    if (!out_) throw std::runtime_error("cannot open " + partial_);
  }
  void write(std::uint64_t offset, std::span<const std::byte> bytes) override {
    if (offset != next_) throw std::runtime_error("a gap in the file");
    next_ += bytes.size();
    if (offset > 0 && behaviour() == "hang") ::pause();
    if (behaviour() == "slow") ::usleep(150'000);
    if (offset > 0 && behaviour() == "throw") throw std::runtime_error("the cloud is full");
    if (offset > 0 && behaviour() == "die") {
      (void)std::fprintf(stderr, "out of luck\n");
      (void)::raise(SIGKILL);
    }
    out_.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  void commit() override {
    out_.close();
    next_ = 0;
    if (std::rename(partial_.c_str(), final_path_.c_str()) != 0) {
      throw std::runtime_error("cannot rename");
    }
    if (behaviour() == "die-committed") (void)::raise(SIGKILL);
    if (behaviour() == "slow") (void)std::fprintf(stderr, "all is written\n");
  }
  void abort() noexcept override {
    out_.close();
    next_ = 0;
    (void)::unlink(partial_.c_str());
  }

 private:
  std::ofstream out_;
  std::string partial_;
  std::string final_path_;
  std::uint64_t next_ = 0;
};

class Hook : public ckptring::WriterHook {
 public:
  void pre_commit(const ckptring::CheckpointDescription& checkpoint) override {
    if (behaviour() == "hook-refuses") throw std::runtime_error("not today");
    std::ofstream(checkpoint.directory + "/pre") << checkpoint.total_bytes;
  }
  void post_commit(const ckptring::CheckpointDescription& checkpoint) override {
    std::ofstream(checkpoint.directory + "/post") << checkpoint.final_path;
    throw std::runtime_error("nobody listens");
  }
};

ckptring::WriterSetup make_writer(const ckptring::RankInfo&) {
  ckptring::WriterSetup setup;
  if (behaviour() == "no-stderr" && std::freopen("/dev/null", "w", stderr) == nullptr) std::abort();
  if (behaviour().starts_with("hook")) {
    setup.hook = std::make_unique<Hook>();
  } else {
    setup.writer = std::make_unique<Writer>();
  }
  return setup;
}

}  // namespace

int main(int argc, char** argv) { return ckptring::drain_main(argc, argv, make_writer); }
