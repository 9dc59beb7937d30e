// For test_interop.py: writes the file that a JSON description asks for, and describes a file as
// JSON, so that Python can compare with what torch reads and writes.
//
//   archive_tool write DESCRIPTION OUT     archive_tool dump FILE
//
// {"storages": [{"bytes": 12, "data": "raw file" | null}, ...],   null: zeros, left as a hole
//  "rank": 0, "world_size": 1, "step": 7, "metadata": {...}, "state": NODE}
// NODE: {"dict": [[key, NODE], ...]} {"list": [...]} {"tuple": [...]} {"int": "5"} {"float":
// "0x1p0"}
//       {"str": ".."} {"bool": true} {"none": true} {"unsupported": ".."} (dump only)
//       {"tensor": {"storage", "dtype", "offset", "sizes", "strides", "grad", "conj", "neg"}}
#include "base/checksum.h"
#include "plan/pt_archive.h"
#include "plan/pt_layout.h"
#include "support/new_storage.h"

#include <ckptring/error.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

namespace ckptring::plan {
namespace {

using Json = nlohmann::ordered_json;

void expect(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(what);
}

class Writer {
 public:
  explicit Writer(const Json& description) : description_(description) {}

  void write(const std::string& out) {
    for (const Json& storage : description_["storages"]) {
      test::new_storage(recorder_, storage["bytes"].get<std::uint64_t>(),
                        storage.value("location", "cpu"));
    }
    node(description_["state"]);
    Metadata metadata;
    const Json facts = description_.value("metadata", Json::object());
    for (const auto& [key, value] : facts.items()) {
      metadata[key] = value.get<std::string>();
    }
    std::optional<std::int64_t> step;
    if (description_.contains("step")) step = description_["step"].get<std::int64_t>();
    const FilePlan plan = lay_out_pt(recorder_.recording(),
                                     {{.global_rank = description_.value("rank", 0),
                                       .global_world_size = description_.value("world_size", 1)},
                                      step,
                                      metadata});
    carry_out(plan, out);
  }

 private:
  void node(const Json& node) {
    const std::string kind = node.begin().key();
    const Json& value = node.begin().value();
    if (kind == "dict") {
      recorder_.begin_dict();
      for (const Json& item : value) {
        if (item[0].is_string()) {
          recorder_.key(item[0].get<std::string>());
        } else {
          recorder_.key(item[0].get<std::int64_t>());
        }
        this->node(item[1]);
      }
      recorder_.end_dict();
    } else if (kind == "list") {
      recorder_.begin_list();
      for (const Json& item : value) this->node(item);
      recorder_.end_list();
    } else if (kind == "tuple") {
      recorder_.begin_tuple();
      for (const Json& item : value) this->node(item);
      recorder_.end_tuple();
    } else if (kind == "int") {
      recorder_.integer(std::stoll(value.get<std::string>()));
    } else if (kind == "float") {
      recorder_.real(std::strtod(value.get<std::string>().c_str(), nullptr));
    } else if (kind == "str") {
      recorder_.string(value.get<std::string>());
    } else if (kind == "bool") {
      recorder_.boolean(value);
    } else if (kind == "none") {
      recorder_.none();
    } else {
      expect(kind == "tensor", "unknown kind of node");
      const auto sizes = value["sizes"].get<std::vector<std::int64_t>>();
      const auto strides = value["strides"].get<std::vector<std::int64_t>>();
      recorder_.tensor({.dtype = *dtype_from_name(value["dtype"].get<std::string>()),
                        .storage = value["storage"],
                        .offset = value["offset"],
                        .sizes = sizes,
                        .strides = strides,
                        .requires_grad = value.value("grad", false),
                        .conj = value.value("conj", false),
                        .neg = value.value("neg", false)});
    }
  }

  /// Block by block, so that files of many GiB can be made; zeros stay holes.
  void carry_out(const FilePlan& plan, const std::string& out) {
    constexpr std::uint64_t kBlock = std::uint64_t{1} << 20;
    const int fd = ::open(out.c_str(), O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0666);
    expect(fd >= 0 && ::ftruncate(fd, static_cast<off_t>(plan.total_bytes())) == 0, "open");
    std::vector<std::uint32_t> crcs(plan.payloads().size(), 0);
    const std::vector<std::byte> zeros(kBlock);
    plan.for_each_piece(0, plan.total_bytes(), [&](const FilePlan::Piece& piece) {
      if (piece.literal != nullptr) {
        put(fd, piece.literal, piece.size, piece.file_offset);
        return;
      }
      const std::uint32_t source = plan.payloads()[piece.payload].source;
      const Json& data = description_["storages"][source]["data"];
      std::ifstream file;
      if (data.is_string()) file.open(data.get<std::string>(), std::ios::binary);
      std::vector<std::byte> block(kBlock);
      for (std::uint64_t at = 0; at < piece.size; at += kBlock) {
        const std::uint64_t size = std::min(kBlock, piece.size - at);
        std::span<const std::byte> bytes = std::span(zeros).first(size);
        if (data.is_string()) {
          file.read(reinterpret_cast<char*>(block.data()), static_cast<std::streamsize>(size));
          expect(file.good(), "the raw file is too short");
          bytes = std::span(block).first(size);
          put(fd, bytes.data(), size, piece.file_offset + at);
        }
        crcs[piece.payload] = base::crc32(bytes, crcs[piece.payload]);
      }
    });
    for (const Fixup& fixup : plan.fixups()) {
      put(fd, &crcs[fixup.payload], sizeof(std::uint32_t), fixup.file_offset);
    }
    expect(::close(fd) == 0, "close");
  }

  static void put(int fd, const void* data, std::uint64_t size, std::uint64_t offset) {
    expect(::pwrite(fd, data, size, static_cast<off_t>(offset)) == static_cast<ssize_t>(size),
           "pwrite");
  }

  const Json& description_;
  StateRecorder recorder_;
};

/// The simplest source there is; the library's own belongs to another folder.
class PlainSource final : public ByteSource {
 public:
  explicit PlainSource(std::string path)
      : path_(std::move(path)), fd_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
    expect(fd_ >= 0, "open");
  }
  PlainSource(const PlainSource&) = delete;
  PlainSource& operator=(const PlainSource&) = delete;
  ~PlainSource() override { ::close(fd_); }
  [[nodiscard]] std::uint64_t size() const override {
    struct stat status {};
    expect(::fstat(fd_, &status) == 0, "fstat");
    return static_cast<std::uint64_t>(status.st_size);
  }
  [[nodiscard]] const std::string& path() const override { return path_; }
  void read(std::uint64_t offset, std::span<std::byte> bytes) const override {
    if (::pread(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset)) !=
        static_cast<ssize_t>(bytes.size())) {
      throw Error(ErrorCode::damaged, "read", path_, "the file ends before");
    }
  }

 private:
  std::string path_;
  int fd_;
};

class Dump {
 public:
  explicit Dump(const std::string& path) : source_(path), archive_(PtArchive::open(source_)) {}

  Json all() {
    const CheckpointInfo& info = archive_.info();
    return {{"format_version", info.format_version},
            {"state", std::visit(*this, archive_.read_value(source_).root().data)}};
  }

  Json operator()(None) { return {{"none", true}}; }
  Json operator()(bool b) { return {{"bool", b}}; }
  Json operator()(std::int64_t i) { return {{"int", std::to_string(i)}}; }
  Json operator()(double d) { return {{"float", fmt::format("{:a}", d)}}; }
  Json operator()(const String& s) { return {{"str", s.text}}; }
  Json operator()(const Unsupported& u) { return {{"unsupported", u.what}}; }
  Json operator()(const List& list) { return {{"list", items(list)}}; }
  Json operator()(const Tuple& tuple) { return {{"tuple", items(tuple)}}; }
  Json operator()(const Dict& dict) {
    struct Name {
      Json operator()(const String& key) const { return key.text; }
      Json operator()(std::int64_t key) const { return key; }
      Json operator()(const OtherKey& key) const { return {{"other", key.words}}; }
    };
    Json out = Json::array();
    for (std::size_t i = 0; i < dict.size(); ++i) {
      Json node = std::visit(*this, dict.value(i).data);
      out.push_back(Json::array({std::visit(Name{}, dict.key(i)), std::move(node)}));
    }
    return {{"dict", std::move(out)}};
  }
  Json operator()(const Tensor& t) {
    const Record* const record = &archive_.records()[t.record()];
    std::vector<std::byte> data(record->size);
    source_.read(record->data_offset, data);
    std::string hex;
    for (const std::byte b : data) hex += fmt::format("{:02x}", static_cast<unsigned>(b));
    return {{"tensor",
             {{"storage", t.storage_key()},
              {"data", hex},
              {"intact", base::crc32(data) == record->crc32},
              {"dtype", name(t.dtype())},
              {"offset", t.offset()},
              {"sizes", t.sizes()},
              {"strides", t.strides()},
              {"location", t.location()},
              {"grad", t.requires_grad()},
              {"conj", t.conj()},
              {"neg", t.neg()}}}};
  }

 private:
  Json items(const Sequence& values) {
    Json out = Json::array();
    for (std::size_t i = 0; i < values.size(); ++i) {
      out.push_back(std::visit(*this, values[i].data));
    }
    return out;
  }

  PlainSource source_;
  PtArchive archive_;
};

int run(int argc, char** argv) {
  if (argc == 4 && std::string(argv[1]) == "write") {
    std::ifstream in(argv[2]);
    const Json description = Json::parse(in);
    Writer(description).write(argv[3]);
    return 0;
  }
  if (argc == 3 && std::string(argv[1]) == "dump") {
    std::cout << Dump(argv[2]).all().dump() << '\n';
    return 0;
  }
  std::cerr << "usage: archive_tool write DESCRIPTION OUT | dump FILE\n";
  return 2;
}

}  // namespace
}  // namespace ckptring::plan

int main(int argc, char** argv) {
  try {
    return ckptring::plan::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
