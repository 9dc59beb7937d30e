"""States of every dtype and structure, from stock torch to us and back."""

import collections
import pickle
import subprocess
import sys
import tarfile
import warnings
import zipfile

import pytest
import torch
from torch.distributed.checkpoint._experimental.checkpoint_reader import CheckpointReader
from torch.distributed.checkpoint._experimental.types import RankInfo
from torch.utils.serialization import config

import states

SEEDS = range(40)


def ways_to_load(file):
    """Everything that stock torch can do with a file."""
    yield torch.load(file, weights_only=True)
    yield torch.load(file, weights_only=True, mmap=True)
    with config.patch({"load.calculate_storage_offsets": True}):
        yield torch.load(file, weights_only=True, mmap=True)
    yield torch.load(file, weights_only=False)


def copied(peer, folder, state, path="sync"):
    states.save(state, folder / "stock.pt")
    peer.ask("copy", **{"from": folder / "stock.pt"}, to=folder / "ours", path=path)
    return folder / "ours" / "checkpoint_0.pt"


@pytest.mark.parametrize("dtype", states.DTYPES, ids=str)
def test_every_dtype_goes_both_ways(peer, folder, dtype):
    state = states.of_dtype(dtype)
    for loaded in ways_to_load(copied(peer, folder, state)):
        states.assert_same(state, loaded)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_structure_goes_both_ways_and_keeps_its_sharing(peer, folder, seed):
    state = states.generated(seed)
    file = copied(peer, folder, state, "async" if seed % 2 else "sync")
    for loaded in ways_to_load(file):
        states.assert_same(state, loaded)
        assert states.sharing(loaded) == states.sharing(state)
    assert zipfile.ZipFile(file).testzip() is None


@pytest.mark.parametrize("seed", SEEDS)
def test_every_structure_fills_one_that_is_there(peer, folder, seed):
    state = states.generated(seed)
    states.save(state, folder / "from.pt")
    states.save(states.zeroed(state), folder / "into.pt")
    answer = peer.ask(
        "fill", **{"from": folder / "from.pt"}, into=folder / "into.pt", to=folder / "ours"
    )
    assert answer["in_place"] and not answer["missing"]
    loaded = torch.load(folder / "ours" / "checkpoint_0.pt", weights_only=True)
    states.assert_same(resolved(state), loaded, strides=False)


def resolved(value):
    """Targets without lazy bits get the values that the bits stand for."""
    if isinstance(value, torch.Tensor):
        return value.resolve_conj().resolve_neg()
    if isinstance(value, dict):
        return {key: resolved(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(resolved(item) for item in value)
    return value


def test_pytorchs_own_partial_load_reads_right_values(peer, folder):
    state = states.plain()
    file = copied(peer, folder, state)
    wanted = {"large": torch.zeros(300, 300, dtype=torch.float64), "nested": None, "gone": None}
    loaded, missing = CheckpointReader(RankInfo(0, 1)).read(str(file.parent), wanted)
    assert missing == ["gone"]
    states.assert_same(state["large"], loaded["large"])
    states.assert_same(state["nested"], loaded["nested"])


def test_unzip_and_zipfile_find_no_fault(peer, folder):
    file = copied(peer, folder, states.plain())
    assert zipfile.ZipFile(file).testzip() is None
    subprocess.run(["unzip", "-tqq", file], check=True)
    names = zipfile.ZipFile(file).namelist()
    assert not [n for n in names if n.endswith((".format_version", ".storage_alignment"))]


def test_what_python_wraps_arrives_bare(peer, folder):
    parameter = torch.nn.Parameter(states.noise((3, 2)))
    frozen = torch.nn.Parameter(states.noise((4,)), requires_grad=False)
    module = torch.nn.BatchNorm1d(3)
    state = {
        "ordered": collections.OrderedDict(b=parameter, a=frozen),
        "module": module.state_dict(),
        "leaf": states.noise((2,)).requires_grad_(True),
        "size": torch.Size([2, 3]),
    }
    loaded = torch.load(copied(peer, folder, state), weights_only=True)
    assert list(loaded["ordered"]) == ["b", "a"]
    states.assert_same(parameter.detach(), loaded["ordered"]["b"].detach())
    states.assert_same(module.state_dict(), loaded["module"])
    assert loaded["ordered"]["b"].requires_grad and not loaded["ordered"]["a"].requires_grad
    assert loaded["leaf"].requires_grad
    assert tuple(loaded["size"]) == (2, 3)


def test_conjugation_and_negation_are_kept(peer, folder):
    values = torch.randn(4, 3, dtype=torch.complex64)
    state = {
        "conj": values.conj(),
        "imag": values.clone().conj().imag,
        "neg": torch._neg_view(torch.ones(3)),
    }
    assert state["imag"].is_neg()
    for loaded in ways_to_load(copied(peer, folder, state)):
        states.assert_same(state, loaded)


def test_one_storage_seen_as_several_dtypes(peer, folder):
    peer.ask("two_dtypes", to=folder / "ours")
    floats = (torch.arange(24) + 0.5).view(4, 6)
    expected = {
        "floats": floats,
        "ints": floats.view(torch.int32).t(),
        "bytes": floats.view(torch.uint8)[1:3],
    }
    for loaded in ways_to_load(folder / "ours" / "checkpoint_0.pt"):
        states.assert_same(expected, loaded)
        assert states.sharing(loaded) == [0, 0, 0]
    # And what stock torch loaded, so do we.
    peer.ask("copy", **{"from": folder / "ours"}, to=folder / "again")
    states.assert_same(expected, torch.load(folder / "again" / "checkpoint_0.pt"))


class Custom:
    pass


@pytest.mark.parametrize(
    "value",
    [b"bytes", {1, 2}, 2**63, 1 + 2j, Custom(), torch.float32, torch.device("cpu"),
     torch.ones(2, 2).to_sparse(), torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
     range(3), collections.Counter("aab")],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_has_no_counterpart_is_named_only_when_asked_for(peer, folder, value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"a": {"b": [0, value]}, "ok": states.noise((3,))}, folder / "stock.pt")
    source = {"from": folder / "stock.pt"}
    for answer in [
        peer.try_("copy", **source, to=folder / "ours"),
        peer.try_("ask", **source, to=folder / "ours", keys=["ok", "a"]),
    ]:
        assert not answer["ok"]
        assert answer["code"] == "unsupported_value", answer
        assert "a.b[1]" in answer["what"], answer
    peer.ask("ask", **source, to=folder / "ours", keys=["ok"])
    loaded = torch.load(folder / "ours" / "checkpoint_0.pt", weights_only=True)
    states.assert_same({"ok": states.noise((3,))}, loaded)


def test_a_key_without_a_counterpart_is_named_only_when_asked_for(peer, folder):
    torch.save({"a": {"b": [0, {(1, 2): 3}]}, "ok": 1}, folder / "stock.pt")
    source = {"from": folder / "stock.pt"}
    answer = peer.try_("ask", **source, to=folder / "ours", keys=["a"])
    assert answer["code"] == "unsupported_value" and "a.b[1].a tuple " in answer["what"], answer
    peer.ask("ask", **source, to=folder / "ours", keys=["ok"])


def test_a_tensor_alone_is_no_state(peer, folder):
    torch.save(torch.ones(3), folder / "stock.pt")
    answer = peer.try_("copy", **{"from": folder / "stock.pt"}, to=folder / "ours")
    assert answer["code"] == "unsupported_value", answer


@pytest.mark.parametrize("protocol", range(6))
def test_the_old_format_is_named_in_every_protocol(peer, folder, protocol):
    torch.save({"a": torch.ones(3)}, folder / "old.pt", _use_new_zipfile_serialization=False,
               pickle_protocol=protocol)  # fmt: skip
    refused(peer, folder / "old.pt", "old format", "save it again")


def refused(peer, file, *words, code="unsupported_value"):
    """Loading it is an error of this code with these words, which name the file."""
    answer = peer.try_("copy", **{"from": file}, to=file.parent / "ours")
    assert not answer["ok"] and answer["code"] == code, answer
    for word in (str(file), *words):
        assert word in answer["what"], answer


@pytest.mark.parametrize("protocol", [0, 1, 3, 4, 5])
def test_other_pickle_protocols_are_named(peer, folder, protocol):
    torch.save({"a": torch.ones(3), "b": True}, folder / "x.pt", pickle_protocol=protocol)
    refused(peer, folder / "x.pt", "protocol 0 or 1" if protocol < 2 else f"protocol {protocol}")


def test_files_of_other_kinds_are_named(peer, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(folder / "script.pt")
    refused(peer, folder / "script.pt", "TorchScript archive", "torch.jit.load")
    peer.ask("torch_save", to=folder / "cpp.pt")
    refused(peer, folder / "cpp.pt", "TorchScript archive", "torch::load")
    (folder / "plain.pt").write_bytes(pickle.dumps({"a": 1}))
    refused(peer, folder / "plain.pt", "a pickle alone")
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    safe = len(header).to_bytes(8, "little") + header + bytes(4)
    (folder / "x.safetensors").write_bytes(safe)
    refused(peer, folder / "x.safetensors", "a safetensors file")
    with tarfile.open(folder / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("sys_info"))
    refused(peer, folder / "x.tar", "a tar archive")


def test_bytes_behind_the_end_are_named(peer, folder):
    torch.save({"a": torch.ones(3)}, folder / "x.pt")
    whole = (folder / "x.pt").read_bytes()
    for more in (b"\n", b"\0" * 512, b"x" * 3_000_000):
        (folder / "x.pt").write_bytes(whole + more)
        refused(peer, folder / "x.pt", f"{len(more)} bytes follow the end of the archive",
                code="damaged")  # fmt: skip
    # What only looks like an end, in a payload, does not hide that a file is cut off.
    payload = torch.frombuffer(bytearray(whole), dtype=torch.uint8)
    torch.save({"a": payload}, folder / "x.pt")
    cut = (folder / "x.pt").read_bytes()[:-30]
    (folder / "x.pt").write_bytes(cut)
    refused(peer, folder / "x.pt", "the file is cut off", code="damaged")


def test_a_file_without_checksums_is_loaded_unchecked_only(peer, folder):
    state = states.plain()
    with config.patch({"save.compute_crc32": False}):
        torch.save(state, folder / "x.pt")
    refused(peer, folder / "x.pt", "checksums were not computed", "verify_checksums")
    peer.ask("copy", **{"from": folder / "x.pt"}, to=folder / "ours", verify=False)
    loaded = torch.load(folder / "ours" / "checkpoint_0.pt", weights_only=True)
    states.assert_same(state, loaded)
    # Its name is that of a checkpoint, and it is one.
    (folder / "run" / "step_1").mkdir(parents=True)
    (folder / "x.pt").rename(folder / "run" / "step_1" / "checkpoint_0.pt")
    assert peer.ask("latest", **{"from": folder / "run"})["path"].endswith("step_1")


def test_an_odd_key_does_not_hide_the_others(peer, folder):
    tensor = states.noise((3,))
    torch.save({True: 1, "a": tensor, 1.5: 2, (1, 2): 3, None: 4, 7: 5}, folder / "x.pt")
    refused(peer, folder / "x.pt", "key True from", "neither a string of UTF-8 nor an int")
    peer.ask("ask", **{"from": folder / "x.pt"}, to=folder / "ours", keys=["a"])
    loaded = torch.load(folder / "ours" / "checkpoint_0.pt", weights_only=True)
    states.assert_same({"a": tensor}, loaded)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
