"""Files of the plan layer in stock torch, zip tools and zipfile; files of torch.save in ours.

Run by ctest, which names the tool in ARCHIVE_TOOL.
"""

import copy
import json
import math
import os
import pathlib
import subprocess
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch.distributed.checkpoint._experimental.checkpoint_reader import CheckpointReader
from torch.distributed.checkpoint._experimental.types import RankInfo
from torch.utils.serialization import config

TOOL = os.environ["ARCHIVE_TOOL"]

# All that this torch has, but for the quantized ones.
DTYPES = sorted(
    {str(value).removeprefix("torch.") for value in vars(torch).values()
     if isinstance(value, torch.dtype) and not str(value).startswith("torch.q")}
)  # fmt: skip
# Those of less than a byte are read by torch.load, and little else can be done with them.
SUB_BYTE = [f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)]


def raw_bytes(storage):
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy().tobytes()


def same(a, b):
    """Equal kinds, keys, shapes and bits. NaN equals itself."""
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and (a.dtype, a.shape, a.stride(), a.storage_offset())
            == (b.dtype, b.shape, b.stride(), b.storage_offset())
            and (a.requires_grad, a.is_conj(), a.is_neg())
            == (b.requires_grad, b.is_conj(), b.is_neg())
            and raw_bytes(a.untyped_storage()) == raw_bytes(b.untyped_storage())
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


class Describe:
    """Turns a state into the description that the tool wants. Storages go to raw files."""

    def __init__(self, folder):
        self.folder = folder
        self.storages = []
        self.known = {}

    def storage(self, untyped):
        key = untyped._cdata
        if key not in self.known:
            self.known[key] = (len(self.storages), untyped)  # keeps it alive
            path = self.folder / f"storage_{len(self.storages)}"
            path.write_bytes(raw_bytes(untyped))
            self.storages.append({"bytes": untyped.nbytes(), "data": str(path)})
        return self.known[key][0]

    def node(self, value):
        if value is None:
            return {"none": True}
        if isinstance(value, torch.Tensor):
            return {
                "tensor": {
                    "storage": self.storage(value.untyped_storage()),
                    "dtype": str(value.dtype).removeprefix("torch."),
                    "offset": value.storage_offset(),
                    "sizes": list(value.shape),
                    "strides": list(value.stride()),
                    "grad": value.requires_grad,
                    "conj": value.is_conj(),
                    "neg": value.is_neg(),
                }
            }
        if isinstance(value, dict):
            return {"dict": [[k, self.node(v)] for k, v in value.items()]}
        if isinstance(value, (list, tuple)):
            return {type(value).__name__: [self.node(v) for v in value]}
        if isinstance(value, bool):
            return {"bool": value}
        if isinstance(value, int):
            return {"int": str(value)}
        if isinstance(value, float):
            return {"float": "nan" if value != value else value.hex()}
        assert isinstance(value, str)
        return {"str": value}


def write(folder, state, name="checkpoint_0.pt"):
    describe = Describe(folder)
    node = describe.node(state)
    return write_description({"storages": describe.storages, "state": node}, folder / name)


def write_description(description, out):
    path = out.with_suffix(".json")
    path.write_text(json.dumps(description))
    subprocess.run([TOOL, "write", path, out], check=True)
    return out


def random_tensor(dtype, *shape):
    """Any bits that the dtype can have."""
    element = torch.empty((), dtype=dtype).element_size()
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (math.prod(shape) * element,))
    return raw.to(torch.uint8).view(dtype).reshape(shape)


def states():
    torch.manual_seed(1)
    yield "empty", {}
    yield "leaves", {
        "int": [0, 1, -1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1,
                2**63 - 1, -(2**63)],
        "float": [0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, 5e-324],
        "other": (True, False, None, "", "h\u00e9 \u20ac \U0001f600", "a\0b"),
        "empty": [[], (), {}],
        7: {-1: "int keys", "mixed": "with strings"},
    }  # fmt: skip
    for name in DTYPES:
        dtype = getattr(torch, name)
        base = random_tensor(dtype, 6, 8)
        yield name, {
            "whole": base,
            "view": base[1:, ::2],
            "transposed": base.t(),
            "expanded": base[2, 3].expand(4, 5),
            "scalar": random_tensor(dtype),
            "nothing": random_tensor(dtype, 0, 3),
            "deep": [({"large": random_tensor(dtype, 70000)},)],
        }
    complex_ = random_tensor(torch.complex64, 4)
    yield "bits", {
        "conj": complex_.conj(),
        "neg": complex_.conj().imag,
        "both": torch._neg_view(complex_.conj()),
        "half": random_tensor(torch.complex32, 4).conj(),
        "grad": torch.zeros(3, requires_grad=True),
        "complex grad": torch.zeros(3, dtype=torch.complex64, requires_grad=True),
    }
    # On its own: torch.save refuses one storage under two dtypes, as above.
    yield "bits of one dtype", {
        "neg": random_tensor(torch.complex64, 4).conj().imag,
        "both": torch._neg_view(random_tensor(torch.complex64, 4).conj()),
    }
    shared = torch.arange(1000.0)
    yield "shared", {"a": shared, "b": [shared[10:], shared.view(10, 100)], "other": shared.clone()}
    odd = torch.UntypedStorage(10)
    odd[:] = 3
    yield "odd storage", {"w": torch.empty(0).set_(odd, 0, (2,), (1,))}
    yield "many", {f"layer.{i}.weight": torch.full((2,), float(i)) for i in range(3000)}
    yield "alignment", {str(i): random_tensor(torch.uint8, 65500 + i) for i in range(0, 80, 3)}
    yield "empty large mixed", {
        "a": torch.empty(0), "b": random_tensor(torch.int64, 20000), "c": torch.empty(0),
        "d": random_tensor(torch.int16, 3),
    }  # fmt: skip


STATES = dict(states())


@pytest.mark.parametrize("name", STATES)
def test_stock_torch_reads_what_we_write(name, tmp_path):
    state = STATES[name]
    path = write(tmp_path, state)
    assert same(torch.load(path, weights_only=True), state)
    assert same(torch.load(path, weights_only=False), state)
    assert same(torch.load(path, weights_only=True, mmap=True), state)
    with config.patch("load.calculate_storage_offsets", True):
        assert same(torch.load(path, weights_only=True, mmap=True), state)
        assert same(torch.load(path, weights_only=True), state)


@pytest.mark.parametrize("name", STATES)
def test_zip_tools_accept_what_we_write(name, tmp_path):
    path = write(tmp_path, STATES[name])
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist())
        names = [i.filename for i in archive.infolist()]
        assert names[:4] == [f"archive/{n}" for n in
                             ("version", "byteorder", "ckptring.json", "data.pkl")]  # fmt: skip
    result = subprocess.run(["unzip", "-t", path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


# The experimental reader copies elements from the tensor's offset on, as if all were contiguous,
# and can do so only for dtypes that torch.frombuffer and a fake tensor know.
PARTIAL = [
    n for n in STATES
    if n not in ("bits", "bits of one dtype", "odd storage", "leaves", *SUB_BYTE)
]  # fmt: skip


def contiguous_only(state):
    if isinstance(state, dict):
        return {k: v for k, v in ((k, contiguous_only(v)) for k, v in state.items()) if v is not None}
    if isinstance(state, (list, tuple)):
        return None
    if isinstance(state, torch.Tensor) and (not state.is_contiguous() or state.numel() == 0):
        return None
    return state


@pytest.mark.parametrize("name", PARTIAL)
def test_partial_load_of_torch_reads_the_right_bytes(name, tmp_path):
    state = STATES[name]
    write(tmp_path, state)
    wanted = contiguous_only(state)
    # Every other key: offsets must be right without the records in between.
    wanted = dict(list(wanted.items())[::2])
    target = {k: torch.zeros_like(v) if isinstance(v, torch.Tensor) else v for k, v in wanted.items()}
    loaded, missing = CheckpointReader(RankInfo(0, 1)).read(str(tmp_path), copy.deepcopy(target))
    assert missing == []
    for key, value in wanted.items():
        got = loaded[key]
        assert got.dtype == value.dtype and got.shape == value.shape
        assert raw_bytes(got.clone().untyped_storage()) == raw_bytes(value.clone().untyped_storage())


def test_sharing_survives_the_way_through_torch(tmp_path):
    loaded = torch.load(write(tmp_path, STATES["shared"]), weights_only=True)
    assert loaded["a"].data_ptr() + 40 == loaded["b"][0].data_ptr()
    assert loaded["a"].data_ptr() == loaded["b"][1].data_ptr()
    assert loaded["a"].data_ptr() != loaded["other"].data_ptr()


@pytest.mark.parametrize("mmap", [False, True])
def test_views_of_one_storage_under_several_dtypes_stay_right(mmap, tmp_path):
    floats = torch.arange(64.0)
    state = {
        "floats": floats,
        "bytes": floats.view(torch.uint8),
        "halves": floats.view(torch.float16)[3:9],
        "f8": floats.view(torch.float8_e5m2)[::2],
    }
    loaded = torch.load(write(tmp_path, state), weights_only=True, mmap=mmap)
    assert same(loaded, state)
    assert len({t.untyped_storage().data_ptr() for t in loaded.values()}) == 1


def test_hooks_are_not_shared_between_tensors(tmp_path):
    state = {"a": torch.zeros(2, requires_grad=True), "b": torch.zeros(2, requires_grad=True)}
    loaded = torch.load(write(tmp_path, state), weights_only=True)
    loaded["a"].register_hook(lambda grad: grad * 2)
    assert not loaded["b"]._backward_hooks


# torch.save to us.


def dump(path):
    out = subprocess.run([TOOL, "dump", path], check=True, capture_output=True, text=True).stdout
    return json.loads(out)["state"]


class Rebuild:
    """The inverse of Describe, from a dump: sharing and all."""

    def __init__(self):
        self.storages = {}

    def value(self, node):
        (kind, value), = node.items()
        if kind == "tensor":
            assert value["intact"]
            key = value["storage"]
            if key not in self.storages:
                raw = bytearray.fromhex(value["data"])
                tensor = torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.empty(0)
                self.storages[key] = tensor.untyped_storage()
            out = torch.empty(0, dtype=getattr(torch, value["dtype"]))
            out.set_(self.storages[key], value["offset"], value["sizes"], value["strides"])
            out.requires_grad = value["grad"]
            if value["conj"]:
                out = out.conj()
            return torch._neg_view(out) if value["neg"] else out
        if kind == "dict":
            return {k: self.value(v) for k, v in value}
        if kind in ("list", "tuple"):
            return {"list": list, "tuple": tuple}[kind](map(self.value, value))
        if kind == "int":
            return int(value)
        if kind == "float":
            return float("nan") if "nan" in value else float.fromhex(value)
        return None if kind == "none" else value


# torch.save refuses one storage under two dtypes.
SAVED = [n for n in STATES if n not in ("bits", *SUB_BYTE)]


@pytest.mark.parametrize("name", SAVED)
def test_we_read_what_torch_saves(name, tmp_path):
    path = tmp_path / "any name.pt"
    torch.save(STATES[name], path)
    assert same(Rebuild().value(dump(path)), STATES[name])


@pytest.mark.parametrize("name", [n for n in STATES if n != "bits"])
def test_we_read_what_we_write(name, tmp_path):
    assert same(Rebuild().value(dump(write(tmp_path, STATES[name]))), STATES[name])


def test_we_read_modules_and_optimizers_of_torch(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),  # an OrderedDict with attributes
        "optim": optimizer.state_dict(),
        "parameters": list(model.parameters()),
        "ordered": OrderedDict(b=1, a=2),
        "size": torch.Size([1, 2]),
    }
    torch.save(state, tmp_path / "x.pt")
    got = Rebuild().value(dump(tmp_path / "x.pt"))
    assert list(got["ordered"].items()) == [("b", 1), ("a", 2)]
    assert got["size"] == (1, 2)
    assert same(got["model"], dict(state["model"]))
    assert same(got["optim"], state["optim"])
    assert same(got["parameters"], [p.detach().requires_grad_() for p in model.parameters()])


def test_keys_without_a_counterpart_are_named_beside_the_others(tmp_path):
    torch.save({True: 1, 1.5: 2, None: 3, (1, 2): 4, "a": 5, 6: 7}, tmp_path / "x.pt")
    assert dump(tmp_path / "x.pt")["dict"] == [
        [{"other": "True"}, {"int": "1"}], [{"other": "1.5"}, {"int": "2"}],
        [{"other": "None"}, {"int": "3"}], [{"other": "a tuple"}, {"int": "4"}],
        ["a", {"int": "5"}], [6, {"int": "7"}],
    ]  # fmt: skip


def test_what_has_no_counterpart_is_named(tmp_path):
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.note = "mine"
    state = {
        "bytes": b"12", "set": {1}, "big": 2**63, "complex": 1 + 2j, "dtype": torch.float32,
        "device": torch.device("cpu"), "path": pathlib.PurePosixPath("/x"), "param": parameter,
        "sparse": torch.eye(2).to_sparse(), "bytearray": bytearray(b"1"),
        "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        "meta": torch.empty(2, device="meta"), "surrogate": "\udc80", "ok": 5,
    }  # fmt: skip
    torch.save(state, tmp_path / "x.pt")
    found = {k: v.get("unsupported") for k, v in dump(tmp_path / "x.pt")["dict"]}
    assert found == {
        "bytes": "bytes", "set": "a set", "big": "an integer of more than 64 bits",
        "complex": "a complex number", "dtype": "the Python object torch.float32",
        "device": "a torch.device", "path": "an object made by pathlib.PurePosixPath",
        "param": "a parameter with Python attributes", "sparse": "a sparse tensor",
        "bytearray": "a bytearray",
        "quantized": "a quantized tensor", "meta": "a meta tensor",
        "surrogate": "a string that is not UTF-8", "ok": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "save, words",
    [
        (lambda p: torch.save([1], p, _use_new_zipfile_serialization=False), "old format"),
        (lambda p: torch.save([1], p, pickle_protocol=4), "protocol 4"),
    ],
)
def test_what_cannot_be_read_says_so(save, words, tmp_path):
    path = tmp_path / "x.pt"
    save(path)
    result = subprocess.run([TOOL, "dump", path], capture_output=True, text=True)
    assert result.returncode == 1
    assert words in result.stderr and str(path) in result.stderr


def test_a_file_that_a_zip_tool_compressed_is_refused(tmp_path):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"N." + bytes(1000))
    result = subprocess.run([TOOL, "dump", path], capture_output=True, text=True)
    assert "record archive/data.pkl: it is compressed (method 8)" in result.stderr
