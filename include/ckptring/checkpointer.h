// Saving and loading with libtorch: ckptring/torch/checkpointer.h.
#pragma once

#include <ckptring/torch/checkpointer.h>
