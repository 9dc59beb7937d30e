// A helper executable of one's own: hands every checkpoint to a store that is no file system.
#include <ckptring/drain.h>
#include <ckptring/error.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace {

class ObjectStoreWriter final : public ckptring::CheckpointWriter {
 public:
  void begin(const ckptring::CheckpointDescription& checkpoint) override {
    name_ = checkpoint.final_path;
    object_.clear();
    object_.reserve(checkpoint.total_bytes);
  }
  void write(std::uint64_t offset, std::span<const std::byte> bytes) override {
    if (offset != object_.size()) {
      throw ckptring::Error(ckptring::ErrorCode::internal, "write", name_, "a gap");
    }
    object_.insert(object_.end(), bytes.begin(), bytes.end());
  }
  void commit() override { store_[name_] = std::move(object_); }
  void abort() noexcept override { object_.clear(); }

 private:
  std::string name_;
  std::vector<std::byte> object_;
  std::map<std::string, std::vector<std::byte>> store_;
};

}  // namespace

int main(int argc, char** argv) {
  return ckptring::drain_main(argc, argv, [](const ckptring::RankInfo&) {
    return ckptring::WriterSetup{.writer = std::make_unique<ObjectStoreWriter>(), .hook = {}};
  });
}
