// Growing a vector for what is known to come.
#pragma once

#include <algorithm>
#include <cstddef>

namespace ckptring::base {

/// Makes room for so many more, and for twice as many as before at least: asked for again and
/// again, it does not copy again and again.
template <class Container>
void make_room(Container& container, std::size_t more) {
  const std::size_t needed = container.size() + more;
  if (needed > container.capacity()) {
    container.reserve(std::max(needed, 2 * container.capacity()));
  }
}

}  // namespace ckptring::base
