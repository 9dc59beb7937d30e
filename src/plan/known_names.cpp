#include "plan/known_names.h"

#include <array>

namespace ckptring::plan {
namespace {

using Kind = NameMeaning::Kind;

struct KnownName {
  std::string_view module;
  std::string_view name;
  Kind kind;
  std::string_view words = {};
};

constexpr std::array kKnownNames = {
    KnownName{"collections", "OrderedDict", Kind::ordered_dict},
    KnownName{"torch._utils", "_rebuild_tensor_v2", Kind::rebuild_tensor_v2},
    KnownName{"torch._utils", "_rebuild_tensor_v3", Kind::rebuild_tensor_v3},
    KnownName{"torch._utils", "_rebuild_parameter", Kind::rebuild_parameter},
    KnownName{"torch._utils", "_rebuild_parameter_with_state", Kind::rebuild_parameter_with_state},
    KnownName{"torch._tensor", "_rebuild_from_type_v2", Kind::rebuild_from_type},
    KnownName{"torch.storage", "UntypedStorage", Kind::untyped_storage},
    KnownName{"torch", "UntypedStorage", Kind::untyped_storage},
    KnownName{"torch", "Size", Kind::size},
    KnownName{"torch", "Tensor", Kind::tensor_class},
    KnownName{"torch._tensor", "Tensor", Kind::tensor_class},
    KnownName{"torch.nn.parameter", "Parameter", Kind::tensor_class},
    KnownName{"copy_reg", "_reconstructor", Kind::reconstructor},
    KnownName{"copyreg", "_reconstructor", Kind::reconstructor},
    KnownName{"_codecs", "encode", Kind::other_words, "bytes"},
    KnownName{"__builtin__", "bytes", Kind::other_words, "bytes"},
    KnownName{"builtins", "bytes", Kind::other_words, "bytes"},
    KnownName{"__builtin__", "bytearray", Kind::other_words, "a bytearray"},
    KnownName{"builtins", "bytearray", Kind::other_words, "a bytearray"},
    KnownName{"__builtin__", "set", Kind::other_words, "a set"},
    KnownName{"builtins", "set", Kind::other_words, "a set"},
    KnownName{"__builtin__", "frozenset", Kind::other_words, "a frozenset"},
    KnownName{"builtins", "frozenset", Kind::other_words, "a frozenset"},
    KnownName{"__builtin__", "complex", Kind::other_words, "a complex number"},
    KnownName{"builtins", "complex", Kind::other_words, "a complex number"},
    KnownName{"torch", "device", Kind::other_words, "a torch.device"},
    KnownName{"torch._utils", "_rebuild_sparse_tensor", Kind::other_words, "a sparse tensor"},
    KnownName{"torch._utils", "_rebuild_qtensor", Kind::other_words, "a quantized tensor"},
    KnownName{"torch._utils", "_rebuild_nested_tensor", Kind::other_words, "a nested tensor"},
    KnownName{"torch._utils", "_rebuild_meta_tensor_no_storage", Kind::other_words,
              "a meta tensor"},
};

}  // namespace

NameMeaning meaning_of(std::string_view module, std::string_view name) noexcept {
  for (const KnownName& known : kKnownNames) {
    if (known.module == module && known.name == name) return {known.kind, {}, known.words};
  }
  if (module != "torch") return {};
  if (const auto typed = dtype_from_typed_storage(name)) return {Kind::typed_storage, *typed, {}};
  if (const auto plain = dtype_from_name(name)) return {Kind::dtype, *plain, {}};
  return {};
}

}  // namespace ckptring::plan
