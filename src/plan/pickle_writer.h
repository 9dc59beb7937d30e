// Writes pickle protocol 2: plain values, and references to named Python objects.
#pragma once

#include "plan/byte_writer.h"
#include "plan/pickle_opcodes.h"
#include "plan/string_memo.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace ckptring::plan {

/// The caller calls in the order of a well-formed value; nothing is checked but bounds.
class PickleWriter {
 public:
  /// What was written once can be referred to by this number. 0: not yet written.
  using MemoId = StringMemo::MemoId;

  /// @param memory  to write into; what it holds is forgotten
  explicit PickleWriter(std::vector<std::byte> memory = {});

  /// What will come, about: saves growing.
  void reserve(std::size_t bytes) { out_.reserve(bytes); }

  void begin_dict() { begin(Opcode::empty_dict); }
  void end_dict() { end(Opcode::setitems); }
  void begin_list() { begin(Opcode::empty_list); }
  void end_list() { end(Opcode::appends); }
  void begin_tuple();
  void end_tuple();

  void none();
  void boolean(bool value);
  void integer(std::int64_t value);
  void real(double value);
  /// Short texts are remembered and referred to when they come again: dict keys repeat a lot.
  /// @throws Error unsupported_value from 4 GiB on
  void string(std::string_view text);
  /// A tuple of integers.
  void integers(std::span<const std::int64_t> values);

  // Python objects, written as the caller spells them out.

  /// The object `name` of the module `module`; `memo` belongs to that name.
  void global(std::string_view module, std::string_view name, MemoId& memo);
  /// A string that is met once only: not remembered.
  void unique_string(std::string_view text);
  void op(Opcode opcode);
  /// Remembers the value written last.
  [[nodiscard]] MemoId remember();
  void recall(MemoId memo);

  /// Ends the pickle.
  [[nodiscard]] std::vector<std::byte> finish();

 private:
  void begin(Opcode empty);
  void end(Opcode fill);
  void enter();
  /// A container's opening mark is written before its first item only.
  void item() {
    if (pending_mark_) {
      pending_mark_ = false;
      op(Opcode::mark);
    }
  }

  ByteWriter out_;
  unsigned depth_ = 0;
  bool pending_mark_ = false;
  MemoId memos_ = 0;
  StringMemo strings_;
};

}  // namespace ckptring::plan
