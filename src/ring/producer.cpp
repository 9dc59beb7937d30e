#include "ring/producer_definitions.h"

namespace ckptring::ring {

template class BasicBlockClaim<Orders>;
template class BasicProducer<Orders>;

}  // namespace ckptring::ring
