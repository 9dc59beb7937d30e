#include "fuzz/targets.h"

#include "plan/pickle_opcodes.h"
#include "plan/pickle_reader.h"
#include "plan/pt_archive.h"
#include "support/memory_source.h"

#include <ckptring/error.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <variant>

namespace ckptring::fuzz {
namespace {

void promise(bool kept, const char* what) {
  if (kept) return;
  std::fprintf(stderr, "a broken promise: %s\n", what);
  std::abort();
}

/// Whether files may be refused with it, and says enough.
void check(const Error& error, std::string_view path) {
  promise(error.code() == ErrorCode::damaged || error.code() == ErrorCode::unsupported_value ||
              error.code() == ErrorCode::newer_format,
          "an error of another kind");
  promise(error.path() == path && !error.cause().empty(), "an error that does not say what");
}

/// Follows every reference, as a user of the value does: shared containers are met again and again.
class Walk {
 public:
  void operator()(plan::None /*none*/) {}
  void operator()(bool /*value*/) {}
  void operator()(std::int64_t /*value*/) {}
  void operator()(double /*value*/) {}
  void operator()(const plan::String& /*text*/) {}
  void operator()(const plan::OtherKey& key) { promise(!key.words.empty(), "a key without words"); }
  void operator()(const plan::Unsupported& value) {
    promise(!value.what.empty(), "an unsupported value without words");
  }
  void operator()(const plan::Tensor& tensor) {
    promise(tensor.sizes().size() == tensor.dimensions() &&
                tensor.strides().size() == tensor.dimensions(),
            "a shape of two ranks");
  }
  void operator()(const plan::Sequence& items) { all(items); }
  void operator()(const plan::Dict& dict) {
    enter();
    for (std::size_t i = 0; i < dict.size(); ++i) {
      const plan::Dict::Key key = dict.key(i);
      std::visit(*this, key);
      if (const auto* text = std::get_if<plan::String>(&key)) {
        promise(dict.find(text->text).has_value(), "a key is not found");
      } else if (const auto* number = std::get_if<std::int64_t>(&key)) {
        promise(dict.find(*number).has_value(), "a key is not found");
      }
      visit(dict.value(i));
    }
    --depth_;
  }

  void visit(const plan::Value& value) {
    promise(++visits_ < std::uint64_t{1} << 34, "a walk without end");
    std::visit(*this, value.data);
  }

 private:
  void all(const plan::Sequence& items) {
    enter();
    for (std::size_t i = 0; i < items.size(); ++i) visit(items[i]);
    --depth_;
  }
  void enter() { promise(++depth_ <= plan::kMaxDepth, "a value that is too deep"); }

  std::uint64_t visits_ = 0;
  unsigned depth_ = 0;
};

}  // namespace

void read_archive(std::span<const std::byte> bytes) {
  const test::MemorySource source({bytes.begin(), bytes.end()});
  try {
    const plan::PtArchive archive = plan::PtArchive::open(source);
    std::uint64_t end = 0;
    for (const plan::Record& record : archive.records()) {
      promise(record.data_offset >= end, "records overlap");
      promise(
          record.data_offset <= bytes.size() && record.size <= bytes.size() - record.data_offset,
          "a record leaves the file");
      end = record.data_offset + record.size;
      promise(archive.find(record.name) == &record, "a record is not found by its name");
    }
    const plan::Document document = archive.read_value(source);
    Walk().visit(document.root());
  } catch (const Error& error) {
    check(error, source.path());
  }
}

void read_any_pickle(std::span<const std::byte> bytes) {
  const std::string path = "/any.pt";
  try {
    // As if each storage had a record of the size that it asks for.
    const plan::Document document = plan::read_pickle({bytes.begin(), bytes.end()}, path);
    Walk().visit(document.root());
  } catch (const Error& error) {
    check(error, path);
  }
}

}  // namespace ckptring::fuzz
