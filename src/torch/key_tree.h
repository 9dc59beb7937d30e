// Names for errors, under this folder's name.
#pragma once

#include "plan/key_tree.h"

namespace ckptring::torch_state {

using plan::KeyStep;
using plan::KeyTree;

}  // namespace ckptring::torch_state
