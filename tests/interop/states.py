"""States to exchange, made from dtypes and structures, and their comparison."""

import collections
import random
from unittest import mock

import torch

# All that this torch has, but for the quantized ones.
DTYPES = sorted(
    {value for value in vars(torch).values()
     if isinstance(value, torch.dtype) and not str(value).startswith("torch.q")},
    key=str,
)  # fmt: skip
# torch.save knows these; torch.load also the others, of less than a byte.
SAVED_DTYPES = set(torch.storage._dtype_to_storage_type_map()) | torch.storage._new_dtypes()


def save(state, file):
    """torch.save of every dtype: the missing ones only have to be added to its list."""
    young = set(DTYPES) - set(torch.storage._dtype_to_storage_type_map())
    with mock.patch.object(torch.storage, "_new_dtypes", lambda: young):
        torch.save(state, file)


def noise(shape, dtype=torch.float32, seed=0):
    """Any bit pattern the dtype may have."""
    generator = torch.Generator().manual_seed(seed)
    count = torch.Size(shape).numel()
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).to(torch.bool)
    raw = torch.randint(0, 256, (count * dtype.itemsize,), generator=generator, dtype=torch.uint8)
    tensor = torch.empty(shape, dtype=dtype)
    tensor.untyped_storage().copy_(raw.untyped_storage())
    return tensor


def of_dtype(dtype, seed=0):
    base = noise((6, 8), dtype, seed)
    return {
        "plain": noise((6, 8), dtype, seed),
        "scalar": noise((), dtype, seed + 1),
        "empty": torch.empty((0, 3), dtype=dtype),
        "transposed": base.t(),
        "sliced": noise((9, 9), dtype, seed + 2)[1:8:2, 2:],
        "expanded": noise((1, 4), dtype, seed + 3).expand(3, 4),
        "page": noise((70_000,), dtype, seed + 4),
    }


def plain(seed=0):
    """Contiguous tensors and dicts only: what PyTorch's experimental partial load can read."""
    return {
        "small": noise((3,), seed=seed),
        "large": noise((300, 300), torch.float64, seed + 1),
        "nested": {"bytes": noise((4097,), torch.uint8, seed + 2), "step": 7, "list": [noise((5,))]},
        "half": noise((1000, 100), torch.bfloat16, seed + 3),
    }


def generated(seed):
    """A random nest of everything that both sides can hold."""
    choose = random.Random(seed)
    shared = noise((20, 30), torch.float32, seed)

    def tensor():
        kind = choose.randrange(6)
        if kind == 0:
            return shared
        if kind == 1:
            return shared[choose.randrange(10) :, :: choose.randrange(1, 4)]
        if kind == 2:
            return shared.t()
        shape = [choose.randrange(6) for _ in range(choose.randrange(4))]
        made = noise(shape, choose.choice(DTYPES), choose.randrange(1000))
        if kind == 3 and made.dtype in (torch.complex64, torch.complex128):
            return made.conj()
        return made

    def leaf():
        return choose.choice([
            lambda: choose.randrange(-(2**63), 2**63),
            lambda: choose.randrange(-300, 300),
            lambda: choose.uniform(-1e300, 1e300),
            lambda: choose.choice([True, False, None, float("inf"), -0.0]),
            lambda: "".join(choose.choice("aé✓ \n\0.") for _ in range(choose.randrange(12))),
            tensor, tensor, tensor,
        ])()  # fmt: skip

    def value(depth):
        kind = choose.randrange(8)
        if depth == 0 or kind < 4:
            return leaf()
        items = [value(depth - 1) for _ in range(choose.randrange(6))]
        if kind == 4:
            return items
        if kind == 5:
            return tuple(items)
        keys = [choose.choice([f"key{i}", i, -i, f"{i}.ü"]) for i in range(len(items))]
        return dict(zip(keys, items))

    return {f"top{i}": value(4) for i in range(8)}


def raw(tensor):
    """The elements' bits in index order."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.dtype not in SAVED_DTYPES:
        tensor = tensor.view(torch.uint8)  # torch copies no others of less than a byte
    tensor = tensor.contiguous()
    flat = torch.empty(tensor.nbytes, dtype=torch.uint8)
    if tensor.nbytes:
        offset = tensor.storage_offset() * tensor.itemsize
        flat.untyped_storage().copy_(tensor.untyped_storage()[offset : offset + tensor.nbytes])
    return flat


def assert_same(expected, found, where="state", strides=True):
    if isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor), where
        assert found.dtype == expected.dtype, where
        assert found.shape == expected.shape, where
        assert found.is_conj() == expected.is_conj() and found.is_neg() == expected.is_neg(), where
        if strides:
            assert found.stride() == expected.stride(), where
            assert found.storage_offset() == expected.storage_offset(), where
        assert torch.equal(raw(found), raw(expected)), where
        return
    if isinstance(expected, collections.OrderedDict):
        expected = dict(expected)
    assert type(found) is type(expected), f"{where}: {type(found)} for {type(expected)}"
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key in expected:
            assert type(key) in [type(k) for k in found if k == key], where
            assert_same(expected[key], found[key], f"{where}.{key}", strides)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for i, (a, b) in enumerate(zip(expected, found)):
            assert_same(a, b, f"{where}[{i}]", strides)
    elif isinstance(expected, float):
        assert expected.hex() == found.hex(), where
    else:
        assert found == expected, where


def tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


def sharing(value):
    """Which tensors lie in one storage, as group numbers in walking order."""
    groups = {}
    return [
        groups.setdefault(t.untyped_storage()._cdata, len(groups)) for t in tensors(value)
    ]


def zeroed(value):
    """The same structure with other values; tensors contiguous and apart from each other."""
    if isinstance(value, torch.Tensor):
        made = torch.empty(value.shape, dtype=value.dtype)
        made.untyped_storage().fill_(0)
        return made
    if isinstance(value, dict):
        return {key: zeroed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(zeroed(item) for item in value)
    return value if value is None else type(value)()
