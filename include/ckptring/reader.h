// Reading a checkpoint back with libtorch: ckptring/torch/reader.h.
#pragma once

#include <ckptring/torch/reader.h>
