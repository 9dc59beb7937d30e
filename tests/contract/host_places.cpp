// States stay where they are, and are the tests' own.
#include "contract/places.h"

namespace ckptring::test {

StateDict placed(const StateDict& state) { return state; }

void train_on(const SaveHandle& /*save*/, const StateDict& /*state*/) {}

}  // namespace ckptring::test
