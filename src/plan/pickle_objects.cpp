#include "plan/pickle_objects.h"

#include "plan/shown.h"

namespace ckptring::plan {

std::string PickleObjects::qualified(const Global& global) const {
  return shown(text(global.module)) + "." + shown(text(global.name));
}

std::string PickleObjects::describe(const PickleItem& item) const {
  switch (item.kind) {
    case Kind::absent:
      return "nothing";
    case Kind::none:
      return "None";
    case Kind::boolean:
      return "a bool";
    case Kind::integer:
      return "an integer";
    case Kind::real:
      return "a float";
    case Kind::string:
      return "a string";
    case Kind::tuple:
      return "a tuple";
    case Kind::list:
      return "a list";
    case Kind::dict:
      return "a dict";
    case Kind::tensor:
      return "a tensor";
    case Kind::storage:
      return "a storage without a tensor";
    case Kind::global:
      return "the Python object " + qualified(globals[item.index]);
    case Kind::unsupported: {
      const Unsupported& what = unsupported[item.index];
      return std::string(what.words) + (what.global ? qualified(globals[*what.global]) : "");
    }
  }
  return "nothing";
}

}  // namespace ckptring::plan
