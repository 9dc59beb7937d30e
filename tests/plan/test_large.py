"""Files beyond 4 GiB and beyond 65,535 records, read by everybody. Slow; run by ctest."""

import os
import subprocess
import zipfile

import pytest
import torch
from torch.utils.serialization import config

from test_interop import write_description

GIB = 1 << 30


def tensor(storage, count, dtype="uint8", offset=0):
    return {"tensor": {"storage": storage, "dtype": dtype, "offset": offset, "sizes": [count],
                       "strides": [1]}}  # fmt: skip


def accepted(path, by_unzip=True):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    if not by_unzip:
        return
    result = subprocess.run(["unzip", "-tq", path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def marked(folder, size, name):
    """A raw file of zeros with a word at its end: a hole but for that."""
    path = folder / name
    with open(path, "wb") as file:
        file.truncate(size)
        file.seek(size - 8)
        file.write(b"the end!")
    return {"bytes": size, "data": str(path)}


@pytest.mark.parametrize("size", [4 * GIB - 1, 4 * GIB + 4096 + 8])
def test_a_record_of_more_than_4_gib(size, tmp_path):
    description = {
        "storages": [{"bytes": 16, "data": None}, marked(tmp_path, size, "raw"),
                     marked(tmp_path, 100, "small"), {"bytes": 0, "data": None},
                     marked(tmp_path, 100_000, "middle")],
        "state": {"dict": [["zero", tensor(0, 16)], ["large", tensor(1, size)],
                           ["end", tensor(1, 8, offset=size - 8)], ["small", tensor(2, 100)],
                           ["empty", tensor(3, 0)], ["middle", tensor(4, 100_000)]]},
    }  # fmt: skip
    path = write_description(description, tmp_path / "checkpoint_0.pt")
    os.unlink(tmp_path / "raw")
    # Info-ZIP takes a size of 2^32 - 1 in a zip64 field for another "see there".
    accepted(path, by_unzip=size != 4 * GIB - 1)
    for calculate in (False, True):
        with config.patch("load.calculate_storage_offsets", calculate):
            loaded = torch.load(path, weights_only=True, mmap=True)
        assert loaded["large"].numel() == size
        for key in ("end", "small", "middle"):
            assert bytes(loaded[key][-8:].tolist()) == b"the end!", key
        assert not loaded["small"][:-8].any() and not loaded["middle"][:-8].any()
    del loaded
    loaded = torch.load(path, weights_only=True)
    assert bytes(loaded["large"][-8:].tolist()) == b"the end!"
    assert bytes(loaded["middle"][-8:].tolist()) == b"the end!"
    assert loaded["end"].untyped_storage().data_ptr() == loaded["large"].data_ptr()


def test_a_file_of_more_than_4_gib_of_smaller_records(tmp_path):
    sizes = [GIB + 1] * 4 + [100, 70_000, 0, 8]
    description = {
        "storages": [marked(tmp_path, s, f"raw{i}") if s else {"bytes": 0, "data": None}
                     for i, s in enumerate(sizes)],
        "state": {"list": [tensor(i, s) for i, s in enumerate(sizes)]},
    }  # fmt: skip
    path = write_description(description, tmp_path / "checkpoint_0.pt")
    accepted(path)
    loaded = torch.load(path, weights_only=True, mmap=True)
    for t, size in zip(loaded, sizes, strict=True):
        assert t.numel() == size
        assert not size or bytes(t[-8:].tolist()) == b"the end!"


def test_more_than_65535_records(tmp_path):
    # 65,531 storages and four small records are one more than the old end record can count.
    for count in (65_530, 65_531, 70_000):
        raw = tmp_path / "raw"
        raw.write_bytes(b"12345678")
        description = {
            "storages": [{"bytes": 8, "data": str(raw)}] * count,
            "state": {"list": [tensor(i, 8) for i in range(count)]},
        }
        path = write_description(description, tmp_path / "checkpoint_0.pt")
        accepted(path)
        loaded = torch.load(path, weights_only=True, mmap=True)
        assert len(loaded) == count and all(bytes(t.tolist()) == b"12345678" for t in loaded)
