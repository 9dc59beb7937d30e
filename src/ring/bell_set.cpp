#include "ring/bell_set.h"

#include "os/eventfd.h"

namespace ckptring::ring {
namespace {

os::UninheritedFd make_bell() {
  return os::UninheritedFd::made_by([] { return os::make_eventfd(); });
}

}  // namespace

BellSet::BellSet() : data_(make_bell()), space_(make_bell()), result_(make_bell()) {}

}  // namespace ckptring::ring
