// The state of a training run as libtorch's dictionary: ckptring/torch/state_dict.h.
#pragma once

#include <ckptring/torch/state_dict.h>
