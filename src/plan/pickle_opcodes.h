// The opcodes of Python's pickle format that are written or read here, and the bounds of both.
#pragma once

#include <cstdint>

namespace ckptring::plan {

/// Containers within containers, the outermost one counted. The writer refuses more, so that what
/// was written can be read; the reader refuses more, so that a walk over a value may be recursive.
inline constexpr unsigned kMaxDepth = 512;

enum class Opcode : std::uint8_t {
  mark = '(',
  stop = '.',
  pop = '0',
  pop_mark = '1',
  dup = '2',
  binint = 'J',
  binint1 = 'K',
  binint2 = 'M',
  none = 'N',
  persistent_id = 'Q',
  reduce = 'R',
  binstring = 'T',
  short_binstring = 'U',
  binunicode = 'X',
  append = 'a',
  build = 'b',
  global = 'c',
  appends = 'e',
  get = 'h',
  long_get = 'j',
  put = 'q',
  long_put = 'r',
  setitem = 's',
  tuple = 't',
  setitems = 'u',
  binfloat = 'G',
  empty_tuple = ')',
  empty_list = ']',
  empty_dict = '}',
  proto = 0x80,
  newobj = 0x81,
  tuple1 = 0x85,
  tuple2 = 0x86,
  tuple3 = 0x87,
  newtrue = 0x88,
  newfalse = 0x89,
  long1 = 0x8a,
  long4 = 0x8b,
};

}  // namespace ckptring::plan
