#include "plan/pickle_writer.h"

#include <ckptring/error.h>
#include <utility>

#include <fmt/format.h>

#include <bit>
#include <limits>

namespace ckptring::plan {
namespace {

constexpr std::size_t kLongestRemembered = 128;

[[noreturn]] void refuse(std::string cause) {
  throw Error(ErrorCode::unsupported_value, "plan the file", "", std::move(cause));
}

}  // namespace

PickleWriter::PickleWriter(std::vector<std::byte> memory) : out_(std::move(memory)) {
  op(Opcode::proto);
  out_.u8(2);
}

void PickleWriter::op(Opcode opcode) { out_.u8(static_cast<std::uint8_t>(opcode)); }

void PickleWriter::enter() {
  if (++depth_ > kMaxDepth) {
    refuse(fmt::format("containers are nested deeper than {} levels", kMaxDepth));
  }
}

void PickleWriter::begin(Opcode empty) {
  item();
  enter();
  op(empty);
  pending_mark_ = true;
}

void PickleWriter::end(Opcode fill) {
  // A mark that is still pending means that nothing came.
  if (pending_mark_) {
    pending_mark_ = false;
  } else {
    op(fill);
  }
  --depth_;
}

void PickleWriter::begin_tuple() {
  item();
  enter();
  op(Opcode::mark);
}

void PickleWriter::end_tuple() {
  op(Opcode::tuple);
  --depth_;
}

void PickleWriter::none() {
  item();
  op(Opcode::none);
}

void PickleWriter::boolean(bool value) {
  item();
  op(value ? Opcode::newtrue : Opcode::newfalse);
}

void PickleWriter::integer(std::int64_t value) {
  item();
  if (value >= 0 && value <= 0xFF) {
    op(Opcode::binint1);
    out_.u8(static_cast<std::uint8_t>(value));
  } else if (value >= 0 && value <= 0xFFFF) {
    op(Opcode::binint2);
    out_.le16(static_cast<std::uint16_t>(value));
  } else if (value >= std::numeric_limits<std::int32_t>::min() &&
             value <= std::numeric_limits<std::int32_t>::max()) {
    op(Opcode::binint);
    out_.le32(static_cast<std::uint32_t>(static_cast<std::int32_t>(value)));
  } else {
    // Two's complement in as few bytes as keep the sign, as Python writes it.
    const auto magnitude = static_cast<std::uint64_t>(value < 0 ? ~value : value);
    const auto bits = static_cast<unsigned>(std::bit_width(magnitude)) + 1;
    const unsigned length = (bits + 7) / 8;
    op(Opcode::long1);
    out_.u8(static_cast<std::uint8_t>(length));
    for (unsigned i = 0; i < length; ++i) {
      out_.u8(static_cast<std::uint8_t>(static_cast<std::uint64_t>(value) >> (8 * i)));
    }
  }
}

void PickleWriter::real(double value) {
  item();
  op(Opcode::binfloat);
  // The one field that pickle stores big-endian.
  out_.le64(__builtin_bswap64(std::bit_cast<std::uint64_t>(value)));
}

void PickleWriter::string(std::string_view text) {
  if (text.size() > kLongestRemembered) {
    unique_string(text);
    return;
  }
  if (const MemoId found = strings_.find(text, out_.view()); found != 0) {
    recall(found);
    return;
  }
  unique_string(text);
  const std::uint64_t length_field = out_.size() - text.size() - sizeof(std::uint32_t);
  strings_.add(text, length_field, remember());
}

void PickleWriter::unique_string(std::string_view text) {
  if (text.size() > std::numeric_limits<std::uint32_t>::max()) {
    refuse(fmt::format("a string of {} bytes exceeds 4 GiB", text.size()));
  }
  item();
  op(Opcode::binunicode);
  out_.le32(static_cast<std::uint32_t>(text.size()));
  out_.text(text);
}

void PickleWriter::integers(std::span<const std::int64_t> values) {
  item();
  if (values.empty()) {
    op(Opcode::empty_tuple);
    return;
  }
  if (values.size() > 3) op(Opcode::mark);
  for (const std::int64_t value : values) integer(value);
  switch (values.size()) {
    case 1:
      op(Opcode::tuple1);
      break;
    case 2:
      op(Opcode::tuple2);
      break;
    case 3:
      op(Opcode::tuple3);
      break;
    default:
      op(Opcode::tuple);
  }
}

void PickleWriter::global(std::string_view module, std::string_view name, MemoId& memo) {
  if (memo != 0) {
    recall(memo);
    return;
  }
  item();
  op(Opcode::global);
  out_.text(module);
  out_.u8('\n');
  out_.text(name);
  out_.u8('\n');
  memo = remember();
}

PickleWriter::MemoId PickleWriter::remember() {
  if (memos_ == std::numeric_limits<MemoId>::max()) refuse("more than 4 billion different values");
  // Numbers in the file count from 0.
  const std::uint32_t number = memos_++;
  if (number <= 0xFF) {
    op(Opcode::put);
    out_.u8(static_cast<std::uint8_t>(number));
  } else {
    op(Opcode::long_put);
    out_.le32(number);
  }
  return memos_;
}

void PickleWriter::recall(MemoId memo) {
  item();
  const std::uint32_t number = memo - 1;
  if (number <= 0xFF) {
    op(Opcode::get);
    out_.u8(static_cast<std::uint8_t>(number));
  } else {
    op(Opcode::long_get);
    out_.le32(number);
  }
}

std::vector<std::byte> PickleWriter::finish() {
  op(Opcode::stop);
  return out_.take();
}

}  // namespace ckptring::plan
