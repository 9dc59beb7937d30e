// Operators for tensors in the memory of a FakeCuda.
#include "support/fake_cuda_torch.h"
#include "support/fake_cuda_torch_memory.h"
#include "support/fake_cuda_torch_streams.h"

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/NativeFunctions.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/native/CPUFallback.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace ckptring::test {
namespace fake_cuda {
namespace {

constexpr c10::DispatchKeySet kCudaKey(c10::DispatchKey::CUDA);

c10::Device device_or_current(std::optional<c10::Device> device) {
  if (device && device->has_index()) return *device;
  return current_device();
}

// --- What copies bytes

std::atomic<unsigned> copies_until_failure{0};  ///< 0: none fails
std::atomic<cudaError_t> copy_failure{cudaSuccess};

void copy_in_stream(c10::Device device, void* to, const void* from, std::size_t bytes) {
  TORCH_CHECK(!is_due(copies_until_failure),
              "CUDA error: ", FakeCuda::runtime().get_error_string(copy_failure.load()));
  try {
    living().copy(current_handle(device), to, from, bytes);
  } catch (const std::runtime_error& refused) {
    TORCH_CHECK(false, "CUDA error: ", refused.what());
  }
}

// --- Tensors without contents, and views

at::Tensor empty(c10::IntArrayRef sizes, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout> /*layout*/, std::optional<c10::Device> device,
                 std::optional<bool> /*pin_memory*/, std::optional<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(device_or_current(device));
  return at::detail::empty_generic(sizes, &device_allocator(), kCudaKey,
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides,
                         std::optional<at::ScalarType> dtype, std::optional<at::Layout> /*layout*/,
                         std::optional<c10::Device> device, std::optional<bool> /*pin_memory*/) {
  const c10::DeviceGuard guard(device_or_current(device));
  return at::detail::empty_strided_generic(sizes, strides, &device_allocator(), kCudaKey,
                                           c10::dtype_or_default(dtype));
}

void grow(const c10::Storage& storage, std::size_t bytes) {
  if (storage.nbytes() >= bytes) return;
  const c10::DeviceGuard guard(storage.device());
  c10::DataPtr memory = device_allocator().allocate(bytes);
  copy_in_stream(storage.device(), memory.get(), storage.data(), storage.nbytes());
  c10::StorageImpl* const impl = storage.unsafeGetStorageImpl();
  impl->set_data_ptr_noswap(std::move(memory));
  impl->set_nbytes(bytes);
}

const at::Tensor& resize(const at::Tensor& self, c10::IntArrayRef sizes,
                         std::optional<at::MemoryFormat> format) {
  if (self.sizes() != sizes) {
    grow(self.storage(),
         at::detail::computeStorageNbytesContiguous(
             sizes, self.itemsize(), static_cast<std::size_t>(self.storage_offset())));
    self.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  }
  if (format) self.unsafeGetTensorImpl()->empty_tensor_restride(*format);
  return self;
}

at::Tensor& set_storage(at::Tensor& self, at::Storage source, std::int64_t offset,
                        c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  TORCH_CHECK(source.device() == self.device(), "the storage is on ", source.device(),
              ", the tensor on ", self.device());
  auto* const impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  impl->set_storage_offset(offset);
  if (strides.data() == nullptr) {
    impl->set_sizes_contiguous(sizes);
  } else {
    impl->set_sizes_and_strides(sizes, strides);
  }
  grow(self.storage(),
       at::detail::computeStorageNbytes(self.sizes(), self.strides(), self.itemsize(),
                                        static_cast<std::size_t>(offset)));
  return self;
}

void record_on_stream(at::Tensor& self, at::Stream stream) {
  record_stream(self.storage().data_ptr(), handle_of(stream));
}

// --- Operators that run in streams

/// A device tensor, from which a kernel makes a CPU tensor over the same bytes.
struct Alias {
  explicit Alias(const at::Tensor& tensor)
      : storage(static_cast<const std::byte*>(tensor.storage().data())),
        bytes(tensor.storage().nbytes()),
        sizes(tensor.sizes().vec()),
        strides(tensor.strides().vec()),
        offset(tensor.storage_offset()),
        dtype(tensor.scalar_type()),
        conj(tensor.is_conj()),
        neg(tensor.is_neg()) {}

  const std::byte* storage;
  std::size_t bytes;
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> strides;
  std::int64_t offset;
  at::ScalarType dtype;
  bool conj;
  bool neg;
};

/// The arguments of an operator that will run in a stream.
class Arguments {
 public:
  explicit Arguments(c10::ArrayRef<c10::IValue> arguments) {
    for (const c10::IValue& argument : arguments) {
      if (argument.isTensor()) {
        arguments_.push_back(keep(argument.toTensor()));
      } else if (argument.isTensorList() || is_list_of_optional_tensors(argument)) {
        Argument list;
        list.list = argument;
        for (const c10::IValue& item : argument.toListRef()) {
          list.items.push_back(item.isTensor() ? keep(item.toTensor())
                                               : Argument{{}, {}, item, {}});
        }
        arguments_.push_back(std::move(list));
      } else {
        arguments_.push_back({{}, {}, argument, {}});
      }
    }
  }

  [[nodiscard]] std::vector<FakeCuda::Range> ranges() const {
    std::vector<FakeCuda::Range> found;
    const auto add = [&](const Argument& argument) {
      if (argument.alias && argument.alias->bytes > 0) {
        found.push_back({argument.alias->storage, argument.alias->bytes});
      }
    };
    for (const Argument& argument : arguments_) {
      add(argument);
      for (const Argument& item : argument.items) add(item);
    }
    return found;
  }

  /// With CPU tensors. What shares a storage shares one there.
  [[nodiscard]] torch::jit::Stack on_cpu(DeviceMemoryAccess& access) const {
    std::map<const std::byte*, at::Storage> storages;
    torch::jit::Stack stack;
    for (const Argument& argument : arguments_) {
      if (argument.list.isNone()) {
        stack.push_back(value(argument, access, storages));
        continue;
      }
      auto list = argument.list.toList().copy();
      for (std::size_t i = 0; i < argument.items.size(); ++i) {
        list.set(i, value(argument.items[i], access, storages));
      }
      stack.emplace_back(std::move(list));
    }
    return stack;
  }

 private:
  struct Argument {
    std::optional<Alias> alias;   ///< a device tensor, or
    std::vector<Argument> items;  ///< of a list, or
    c10::IValue plain;            ///< anything else
    c10::IValue list;             ///< that the items are of
  };

  static bool is_list_of_optional_tensors(const c10::IValue& argument) {
    return argument.isList() && argument.type()->isSubtypeOf(*c10::ListType::ofOptionalTensors());
  }

  static Argument keep(const at::Tensor& tensor) {
    if (!tensor.defined()) return {{}, {}, tensor, {}};
    if (tensor.is_cuda()) return {Alias(tensor), {}, {}, {}};
    TORCH_CHECK(tensor.dim() == 0, "Expected all tensors to be on the same device");
    return {{}, {}, tensor.clone(), {}};
  }

  static c10::IValue value(const Argument& argument, DeviceMemoryAccess& access,
                           std::map<const std::byte*, at::Storage>& storages) {
    if (!argument.alias) return argument.plain;
    const Alias& alias = *argument.alias;
    at::Storage& storage = storages[alias.storage];
    if (!storage) {
      const auto bytes =
          alias.bytes == 0 ? std::span<std::byte>() : access.at(alias.storage, alias.bytes);
      storage = at::Storage(at::Storage::use_byte_size_t(), bytes.size(),
                            at::DataPtr(bytes.data(), c10::kCPU), nullptr, false);
    }
    at::Tensor tensor = at::empty({0}, at::TensorOptions().dtype(alias.dtype));
    tensor.set_(storage, alias.offset, alias.sizes, alias.strides);
    if (alias.conj) tensor._set_conj(true);
    if (alias.neg) tensor._set_neg(true);
    return tensor;
  }

  std::vector<Argument> arguments_;
};

/// Runs `kernel` in the current stream of the device, with CPU tensors in place of the device's.
template <class Kernel>
void launch(c10::Device device, const std::string& what, Arguments arguments, Kernel kernel) {
  FakeCuda& cuda = living();
  const auto ranges = arguments.ranges();
  cuda.launch(
      current_handle(device),
      [=, arguments = std::move(arguments)](DeviceMemoryAccess& access) {
        const at::AutoDispatchBelowAutograd below_autograd;
        try {
          kernel(arguments.on_cpu(access));
        } catch (const std::exception& error) {
          // On a device this would be an error of the launch, or damage.
          (void)std::fprintf(stderr, "fake CUDA: %s in a stream: %s\n", what.c_str(), error.what());
          std::abort();
        }
      },
      ranges);
}

/// The tensors that an operator writes, if they are all that it returns.
std::optional<std::vector<at::Tensor>> written_and_returned(const c10::FunctionSchema& schema,
                                                            c10::ArrayRef<c10::IValue> arguments) {
  std::vector<at::Tensor> written;
  bool lists = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const c10::Argument& argument = schema.arguments()[i];
    // Random numbers are drawn in the order of the calls.
    if (argument.type()->str().find("Generator") != std::string::npos) return std::nullopt;
    if (argument.alias_info() == nullptr || !argument.alias_info()->isWrite()) continue;
    if (arguments[i].isTensor()) {
      written.push_back(arguments[i].toTensor());
    } else if (arguments[i].isTensorList()) {
      lists = true;
      for (const at::Tensor& tensor : arguments[i].toTensorList()) written.push_back(tensor);
    }
  }
  const auto& returns = schema.returns();
  const bool all_written = std::all_of(returns.begin(), returns.end(), [](const auto& result) {
    return result.alias_info() != nullptr && result.alias_info()->isWrite();
  });
  const bool matched = returns.empty() || (!lists && returns.size() == written.size());
  if (written.empty() || !all_written || !matched) return std::nullopt;
  // What has no elements may be about to be resized, which a kernel cannot do.
  const bool usable = std::all_of(written.begin(), written.end(), [](const at::Tensor& tensor) {
    return tensor.defined() && tensor.is_cuda() && tensor.numel() > 0;
  });
  if (!usable) return std::nullopt;
  return written;
}

void any_operator(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::FunctionSchema& schema = op.schema();
  const auto arguments = torch::jit::last(*stack, schema.arguments().size());
  const auto written = written_and_returned(schema, arguments);
  if (!written) {
    at::native::cpu_fallback(op, stack);
    return;
  }
  launch(written->front().device(), schema.name(), Arguments(arguments),
         [op](torch::jit::Stack on_cpu) { op.callBoxed(on_cpu); });
  torch::jit::drop(*stack, schema.arguments().size());
  if (schema.returns().empty()) return;
  for (const at::Tensor& tensor : *written) stack->emplace_back(tensor);
}

/// Writes the running statistics, of which its schema says nothing, so that no version rises: as
/// the kernels of a device do.
std::tuple<at::Tensor, at::Tensor, at::Tensor> native_batch_norm(
    const at::Tensor& input, const std::optional<at::Tensor>& weight,
    const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& running_mean,
    const std::optional<at::Tensor>& running_var, bool training, double momentum, double eps) {
  const at::Tensor output = at::empty_like(input);
  const at::Tensor mean = at::empty({training ? input.size(1) : 0}, input.options());
  const at::Tensor invstd = at::empty_like(mean);
  const auto given = [](const std::optional<at::Tensor>& tensor) {
    return c10::IValue(tensor.value_or(at::Tensor()));
  };
  launch(input.device(), "native_batch_norm",
         Arguments({input, given(weight), given(bias), given(running_mean), given(running_var),
                    output, mean, invstd}),
         [=](torch::jit::Stack on_cpu) {
           const auto tensor = [&](std::size_t i) { return on_cpu[i].toTensor(); };
           const auto [out, saved_mean, saved_invstd] = at::native_batch_norm(
               tensor(0), tensor(1), tensor(2), tensor(3), tensor(4), training, momentum, eps);
           tensor(5).copy_(out);
           tensor(6).copy_(saved_mean);
           tensor(7).copy_(saved_invstd);
         });
  return {output, mean, invstd};
}

// --- Copies

bool plain(const at::Tensor& tensor) {
  return tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg();
}

void copy_within_devices(const at::Tensor& to, const at::Tensor& from) {
  FakeCuda& cuda = living();
  auto* const target = current_handle(to.device());
  auto* const source = current_handle(from.device());
  if (target != source) cuda.wait_for(source, target);
  launch(from.device(), "copy_", Arguments({to, from}),
         [](torch::jit::Stack on_cpu) { on_cpu[0].toTensor().copy_(on_cpu[1].toTensor()); });
  if (target != source) cuda.wait_for(target, source);
}

void copy_bytes(const at::Tensor& to, const at::Tensor& from) {
  const at::Tensor& on_device = to.is_cuda() ? to : from;
  copy_in_stream(on_device.device(), to.mutable_data_ptr(), from.const_data_ptr(), from.nbytes());
}

void copy_to_device(const at::Tensor& to, const at::Tensor& from, bool non_blocking) {
  const bool as_it_is =
      plain(from) && from.scalar_type() == to.scalar_type() && from.sizes() == to.sizes();
  at::Tensor host = from;
  if (!as_it_is) {
    host = at::empty(to.sizes(), at::TensorOptions().dtype(to.scalar_type()));
    host.copy_(from);
  }
  if (plain(to)) {
    copy_bytes(to, host);
  } else {
    const at::Tensor staged = at::empty(to.sizes(), to.options());
    copy_bytes(staged, host);
    copy_within_devices(to, staged);
  }
  if (!non_blocking) living().synchronise(current_handle(to.device()));
}

void copy_to_host(const at::Tensor& to, const at::Tensor& from, bool non_blocking) {
  at::Tensor packed = from;
  if (!plain(from)) {
    packed = at::empty(from.sizes(), from.options());
    copy_within_devices(packed, from);
  }
  const bool as_it_is =
      plain(to) && to.scalar_type() == from.scalar_type() && to.sizes() == from.sizes();
  if (as_it_is) {
    copy_bytes(to, packed);
    if (!non_blocking) living().synchronise(current_handle(from.device()));
  } else {
    const at::Tensor host = at::empty(from.sizes(), at::TensorOptions().dtype(from.scalar_type()));
    copy_bytes(host, packed);  // pageable: it is there when this returns
    to.copy_(host);
  }
}

at::Tensor& copy(at::Tensor& self, const at::Tensor& from, bool non_blocking) {
  if (self.is_same(from) || self.numel() == 0) return self;
  if (!from.is_cuda()) {
    copy_to_device(self, from, non_blocking);
  } else if (!self.is_cuda()) {
    copy_to_host(self, from, non_blocking);
  } else {
    copy_within_devices(self, from);
  }
  return self;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  to.resize_(from.sizes());
  to.copy_(from);
  return to;
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("resize_", &resize);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Storage",
         TORCH_FN(static_cast<at::Tensor& (*)(at::Tensor&, at::Storage)>(&at::native::set_)));
  m.impl("set_.source_Tensor", TORCH_FN(at::native::set_tensor_));
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(at::native::view));
  m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  m.impl("view_as_real", TORCH_FN(at::native::view_as_real));
  m.impl("view_as_complex", TORCH_FN(at::native::view_as_complex));
  m.impl("unfold", TORCH_FN(at::native::unfold));
  m.impl("record_stream", &record_on_stream);
  m.impl("native_batch_norm", &native_batch_norm);
  m.impl("copy_", &copy);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
}

TORCH_LIBRARY_IMPL(_, CUDA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&any_operator>());
}

}  // namespace
}  // namespace fake_cuda

void fail_libtorch_copy(unsigned nth, cudaError_t error) {
  fake_cuda::copy_failure.store(error);
  fake_cuda::copies_until_failure.store(nth);
}

}  // namespace ckptring::test
