#include "fuzz/seeds.h"

#include "plan/pt_archive.h"
#include "plan/pt_layout.h"
#include "plan/zip_layout.h"
#include "support/joined.h"
#include "support/materialize.h"
#include "support/memory_source.h"
#include "support/new_storage.h"

#include <array>
#include <functional>
#include <span>
#include <string>

namespace ckptring::fuzz {
namespace {

using namespace std::string_literals;  // NUL bytes in pickles
using plan::DType;

using Build = std::function<void(StateRecorder&)>;

test::Bytes file_of(const std::vector<std::uint64_t>& storages, const Build& build) {
  StateRecorder recorder;
  std::vector<test::Bytes> bytes;
  for (const std::uint64_t size : storages) {
    test::new_storage(recorder, size);
    bytes.push_back(test::pattern(size, static_cast<std::uint32_t>(bytes.size())));
  }
  build(recorder);
  return test::materialize(
      plan::lay_out_pt(recorder.recording(), {{.global_rank = 1, .global_world_size = 2},
                                              7,
                                              {{"note", "text"s}, {"rate", 0.5}, {"on", true}}}),
      bytes);
}

void tensor(StateRecorder& recorder, std::uint32_t storage, DType dtype, std::int64_t size) {
  const std::array<std::int64_t, 2> sizes{size, 1};
  const std::array<std::int64_t, 2> strides{1, 1};
  recorder.tensor({dtype, storage, 0, sizes, strides, false, false, false});
}

test::Bytes bytes_of(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

}  // namespace

Seeds archive_seeds() {
  Seeds seeds;
  seeds.push_back(file_of({}, [](StateRecorder& b) { b.none(); }));
  seeds.push_back(file_of({48, 0, 9}, [](StateRecorder& b) {
    b.begin_dict();
    b.key("w");
    tensor(b, 0, DType::float32, 12);
    b.key("tied");
    tensor(b, 0, DType::float32, 3);
    b.key("empty");
    tensor(b, 1, DType::int64, 0);
    b.key(5);
    tensor(b, 2, DType::uint8, 9);
    b.end_dict();
  }));
  seeds.push_back(file_of({16, 8}, [](StateRecorder& b) {
    b.begin_list();
    tensor(b, 0, DType::float32, 4);
    tensor(b, 0, DType::uint8, 16);
    tensor(b, 1, DType::uint16, 4);
    b.begin_tuple();
    b.boolean(true);
    b.integer(-1);
    b.integer(std::int64_t{1} << 40);
    b.real(2.5);
    b.string("text");
    b.end_tuple();
    b.end_list();
  }));
  const auto literal = [](const std::vector<std::pair<std::string, std::string>>& records) {
    plan::ZipLayout layout("a");
    for (const auto& [name, contents] : records) layout.add_literal(name, bytes_of(contents));
    return test::materialize(std::move(layout).finish(), {});
  };
  seeds.push_back(literal({{"data.pkl", "N."}}));
  seeds.push_back(literal({{"data.pkl", "N."}, {"byteorder", "big"}}));
  seeds.push_back(literal({{"ckptring.json", R"({"format_version":9})"}, {"data.pkl", "N."}}));
  return seeds;
}

Seeds pickle_seeds() {
  Seeds seeds;
  for (const test::Bytes& file : archive_seeds()) {
    const test::MemorySource source(file);
    try {
      const plan::PtArchive archive = plan::PtArchive::open(source);
      const plan::Record* const record = archive.find("data.pkl");
      test::Bytes pickle(record->size);
      source.read(record->data_offset, pickle);
      seeds.push_back(std::move(pickle));
    } catch (const Error&) {
      continue;  // made to be refused
    }
  }
  const std::string storage =
      "(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"
      "0X\x03\0\0\0cpuK\x0ctQ"s;
  const std::string hooks = "ccollections\nOrderedDict\n)R";
  const std::string v2 = "ctorch._utils\n_rebuild_tensor_v2\n(" + storage +
                         "K\x01K\x02K\x03\x86K\x04K\x01\x86\x89" + hooks + "tR";
  // Bits that a dtype may have, or not.
  const auto tensor_of = [](const std::string& type, int count, const std::string& grad,
                            const std::string& bits) {
    return test::joined({"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\n"s, type,
                         "Storage\nX\x01\0\0\0"
                         "0X\x03\0\0\0cpuK"s,
                         std::string(1, static_cast<char>(count)), "tQK\x00))"s, grad,
                         "ccollections\nOrderedDict\n)R", bits, "tR"});
  };
  const std::string neg = "}X\x03\0\0\0neg\x88s"s;
  const std::string conj = "}X\x04\0\0\0conj\x88s"s;
  for (const std::string& tensor :
       {tensor_of("Long", 6, "\x88", ""), tensor_of("Bool", 48, "\x89", neg),
        tensor_of("Float", 12, "\x88", neg), tensor_of("Float", 12, "\x89", conj),
        tensor_of("ComplexFloat", 6, "\x88", conj)}) {
    seeds.push_back(bytes_of("}X\x01\0\0\0w"s + tensor + "s."));
  }
  // States: what optimizers have, and what is shared.
  const std::string key = "X\x01\0\0\0"s;
  for (const std::string& state :
       {test::joined({"}(", key, "w", v2, "tR", key, "l](K\x01", v2, "tR}(K\x00N", key, "xK\x05ue",
                      key, "tK\x01N\x86u."}),
        test::joined({"}(", key, "a](K\x00K\x01K\x02"s, "eq\x00"s, key, "bh\x00"s, key, "c}(", key,
                      "dh\x00"s, key, "e", v2, "tRuq\x01", key, "fh\x01u."}),
        test::joined({"}(\x88K\x01", key, "wG\x3f\xf0\0\0\0\0\0\0"s, key, "v", v2,
                      "}(X\x03\0\0\0neg\x88utRu."s})}) {
    seeds.push_back(bytes_of(state));
  }
  for (const std::string& pickle :
       {v2 + "}(X\x04\0\0\0conj\x88X\x03\0\0\0neg\x88u."s,
        test::joined({"ctorch._utils\n_rebuild_parameter\n", v2, "\x88", hooks, "\x87R."}),
        test::joined({"ctorch._tensor\n_rebuild_from_type_v2\n(",
                      "ctorch._utils\n_rebuild_tensor_v2\nctorch\nTensor\n(", storage,
                      "K\x00))\x89"s, hooks, "t}tR."}),
        "ccollections\nOrderedDict\n](X\x01\0\0\0aK\x01\x86"
        "e\x85R}X\x01\0\0\0bNsb."s,
        "ccopy_reg\n_reconstructor\n(cfoo\nBar\nc__builtin__\nobject\nNtR."s,
        "]q\x00h\x00"
        "a."s,
        "(q\x00K\x01"
        "10K\x02."s,
        "ctorch\nSize\nK\x02\x85\x85R."s, "\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\x00."s,
        "\x8b\x01\0\0\0\xfe."s, "U\x02hiT\x02\0\0\0hi\x86r\x01\0\0\0j\x01\0\0\0\x86."s,
        "cos\nsystem\nU\x02ls\x85R."s}) {
    seeds.push_back(bytes_of(pickle));
  }
  return seeds;
}

}  // namespace ckptring::fuzz
