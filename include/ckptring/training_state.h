// Collecting the state of a training run of libtorch: ckptring/torch/training_state.h.
#pragma once

#include <ckptring/torch/training_state.h>
