// The stack machine that a pickle is a program for. It runs into tables of plain items; nothing
// is imported or called. Whether the tables make sense is pickle_reader's part.
#pragma once

#include "plan/pickle_objects.h"

#include <cstddef>
#include <string>
#include <vector>

namespace ckptring::plan {

struct PickleProgram {
  PickleObjects objects;
  PickleItem root;
};

/// @param pickle at most kMaxPickle bytes
/// @throws Error damaged (naming the byte), unsupported_value (another protocol)
PickleProgram run_pickle(std::vector<std::byte> pickle, const std::string& path);

}  // namespace ckptring::plan
