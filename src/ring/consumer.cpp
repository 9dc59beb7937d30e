#include "ring/consumer_definitions.h"

namespace ckptring::ring {

template class BasicConsumer<Orders>;

}  // namespace ckptring::ring
