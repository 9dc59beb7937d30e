"""The ckptring command: what it prints, and with which exit code it ends.

Run by ctest, which names the command in CKPTRING and the writer of test files in ARCHIVE_TOOL.
"""

import fcntl
import json
import os
import pty
import re
import resource
import subprocess
import time

import pytest
import torch
from torch.utils.serialization import config

COMMAND = os.environ["CKPTRING"]
ARCHIVE_TOOL = os.environ["ARCHIVE_TOOL"]


def ckptring(*arguments):
    return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True)


def tensor(storage, dtype, sizes, strides, offset=0):
    return {"tensor": {"storage": storage, "dtype": dtype, "offset": offset, "sizes": sizes,
                       "strides": strides}}  # fmt: skip


def write(path, rank=0, storage_bytes=48, metadata=None):
    raw = path.parent / "raw"
    raw.write_bytes(bytes(range(256)) * (max(storage_bytes, 2000) // 256 + 1))
    description = {
        "storages": [{"bytes": storage_bytes, "data": str(raw)}, {"bytes": 2000, "data": str(raw)}],
        "rank": rank, "world_size": 2, "step": 100,
        "metadata": metadata or {"run": "first"},
        "state": {"dict": [
            ["model", {"dict": [["w", tensor(0, "float32", [3, 4], [4, 1])]]}],
            ["tied", {"list": [tensor(0, "float32", [2], [4], 1)]}],
            ["half", tensor(1, "float16", [1000], [1])],
            ["bell\x07", {"none": True}], ["lr", {"float": "0x1p-3"}],
        ]},
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(description))
    subprocess.run([ARCHIVE_TOOL, "write", path.with_suffix(".json"), path], check=True)
    return path


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "checkpoint_0.pt")


def damage(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x40]))


def record_start(path, contents):
    at = path.read_bytes().find(contents)
    assert at >= 0
    return at


def test_inspect_shows_tensors_sharing_totals_and_metadata(file):
    result = ckptring("inspect", file)
    assert (result.returncode, result.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines == [
        str(file),
        "ckptring format 1, rank 0 of 2, step 100",
        'run = "first"',
        "KEY DTYPE SHAPE BYTES",
        "model.w float32 [3, 4] 48 B",
        "tied[0] float32 [2] 8 B shares the storage of model.w",
        "half float16 [1000] 1.95 KiB",
        f"3 tensors in 2 storages of 2.00 KiB, 2 other values; the file has "
        f"{file.stat().st_size / 1024:.2f} KiB",
    ]


def test_inspect_prints_json_for_programs(file):
    (found,) = json.loads(ckptring("inspect", "--json", file).stdout)["files"]
    assert (found["path"], found["file_bytes"]) == (str(file), file.stat().st_size)
    assert (found["format_version"], found["rank"], found["world_size"]) == (1, 0, 2)
    assert (found["step"], found["metadata"]) == (100, {"run": "first"})
    assert found["totals"] == {"tensors": 3, "tensor_bytes": 2056, "storages": 2,
                               "storage_bytes": 2048, "other_values": 2}  # fmt: skip
    assert found["tensors"][1] == {
        "key": "tied[0]", "dtype": "float32", "shape": [2], "strides": [4], "offset": 1, "bytes": 8,
        "storage": "0", "storage_bytes": 48, "location": "cpu", "requires_grad": False,
    }  # fmt: skip


def inspect_within(mib, path, *arguments):
    """So many bytes it prints with no more memory than this; and the beginning of them."""

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (mib << 20, mib << 20))

    process = subprocess.Popen([COMMAND, "inspect", path, *arguments], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, preexec_fn=limit)  # fmt: skip
    begin, printed = b"", 0
    while part := process.stdout.read(1 << 20):
        begin = begin or part
        printed += len(part)
    assert (process.stderr.read(), process.wait()) == (b"", 0)
    return printed, begin.decode()


def test_one_long_shape_or_key_makes_no_other_row_longer(tmp_path):
    (tmp_path / "raw").write_bytes(bytes(48))
    rows = {"list": [tensor(0, "float32", [1], [1])] * 20000}
    many = {"list": [tensor(0, "float32", [1], [1])] * 40000}
    states = {
        "shape": [["rows", rows], ["long", tensor(0, "float32", [1] * 100000, [1] * 100000)]],
        "keys": [["k" * 5000, tensor(0, "float32", [1], [1])], ["rows", rows]],
        "deep": [["x" * 990, {"dict": [["y" * 990, {"dict": [["z" * 990, many]]}]]}]],
    }
    for name, state in states.items():
        (tmp_path / "x.json").write_text(json.dumps({
            "storages": [{"bytes": 48, "data": str(tmp_path / "raw")}], "rank": 0, "world_size": 1,
            "metadata": {}, "state": {"dict": state}}))  # fmt: skip
        subprocess.run([ARCHIVE_TOOL, "write", tmp_path / "x.json", tmp_path / name], check=True)
    printed, begin = inspect_within(128, tmp_path / "shape")
    assert printed < 20000 * 200
    assert re.search(r"rows\[7\] +float32 +\[1\] +4 B  shares the storage of rows\[0\]\n", begin)
    lines = ckptring("inspect", tmp_path / "shape").stdout.splitlines()
    assert f"[{'1, ' * 32}...: 100000 dimensions]" in lines[-2]
    printed, begin = inspect_within(128, tmp_path / "keys")
    assert printed < 20000 * 300 and "shares the storage of kkk" in begin
    printed, begin = inspect_within(128, tmp_path / "deep")
    assert printed < 40000 * 400 and "zzz[7] " in begin
    printed, _ = inspect_within(128, tmp_path / "deep", "--json")
    assert printed > 40000 * 2000
    with open(tmp_path / "out.json", "w") as out:
        subprocess.run([COMMAND, "inspect", tmp_path / "keys", "--json"], stdout=out, check=True)
    (found,) = json.loads((tmp_path / "out.json").read_text())["files"]
    assert found["tensors"][0]["key"].startswith("k" * 1000)
    assert found["totals"]["tensors"] == len(found["tensors"]) == 20001


def test_a_directory_means_all_its_ranks_in_order(tmp_path):
    for rank in (10, 2, 0):
        write(tmp_path / f"checkpoint_{rank}.pt", rank=min(rank, 1))
    (tmp_path / "notes.pt").write_text("not a checkpoint")
    (tmp_path / (".checkpoint_1.pt." + "0" * 32 + ".tmp")).write_text("half")
    files = json.loads(ckptring("inspect", tmp_path, "--json").stdout)["files"]
    names = [os.path.basename(f["path"]) for f in files]
    assert names == ["checkpoint_0.pt", "checkpoint_2.pt", "checkpoint_10.pt"]
    result = ckptring("verify", tmp_path)
    assert result.returncode == 0
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [f["path"] for f in files]


def test_files_of_torch_are_shown_too(tmp_path):
    torch.save({"w": torch.zeros(2, 3), "s": {1}}, tmp_path / "x.pt")
    result = ckptring("inspect", tmp_path / "x.pt")
    assert result.returncode == 0
    assert "not written by ckptring" in result.stdout
    assert "s: cannot be loaded here, it is a set" in result.stdout
    (found,) = json.loads(ckptring("inspect", "--json", tmp_path / "x.pt").stdout)["files"]
    assert found["unsupported"] == [{"key": "s", "what": "a set"}]
    assert "rank" not in found
    assert ckptring("verify", tmp_path / "x.pt").returncode == 0


def test_what_a_file_has_twice_is_shown_once(tmp_path):
    shared = {"w": torch.zeros(2)}
    torch.save({"a": shared, "b": [shared]}, tmp_path / "x.pt")
    out = ckptring("inspect", tmp_path / "x.pt").stdout
    assert "a.w" in out and "b[0]: the same object as a\n" in out
    (found,) = json.loads(ckptring("inspect", "--json", tmp_path / "x.pt").stdout)["files"]
    assert found["shared"] == [{"key": "b[0]", "same_as": "a"}]
    assert [t["key"] for t in found["tensors"]] == ["a.w"]


def test_odd_keys_do_not_hide_the_others(tmp_path):
    torch.save({True: 1, "w": torch.zeros(2)}, tmp_path / "x.pt")
    out = ckptring("inspect", tmp_path / "x.pt").stdout
    assert "True: cannot be loaded here, it is under a key that is neither" in out
    assert "w  " in out


def test_a_file_without_checksums_is_shown_and_not_verified(file, tmp_path):
    with config.patch({"save.compute_crc32": False}):
        torch.save({"w": torch.zeros(2)}, tmp_path / "x.pt")
    result = ckptring("inspect", tmp_path / "x.pt")
    assert result.returncode == 0 and "checksums were not computed" in result.stdout
    (found,) = json.loads(ckptring("inspect", "--json", tmp_path / "x.pt").stdout)["files"]
    assert found["checksums"] is False
    assert json.loads(ckptring("inspect", "--json", file).stdout)["files"][0]["checksums"] is True
    result = ckptring("verify", tmp_path / "x.pt")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"ckptring: verify {tmp_path}/x.pt: its checksums were not computed")


def test_keys_cannot_command_the_terminal(tmp_path):
    torch.save({"a\x1b[31mred": torch.zeros(1)}, tmp_path / "x.pt")
    out = ckptring("inspect", tmp_path / "x.pt").stdout
    assert "\x1b" not in out and "a\\x1b[31mred" in out


def test_nor_can_what_is_a_control_character_in_unicode(tmp_path):
    command = "a\x9b31m\x80\x9f\x7f\xa0\u0180é"
    path = write(tmp_path / "checkpoint_0.pt", metadata={"k\x85": "v" + command + "\x1b"})
    out = ckptring("inspect", path).stdout
    assert '  k\\u0085 = "va\\u009b31m\\u0080\\u009f\\x7f\xa0\u0180é\\u001b"\n' in out
    torch.save({command: torch.zeros(1)}, tmp_path / "x.pt")
    out = ckptring("inspect", tmp_path / "x.pt").stdout
    assert "a\\u009b31m\\u0080\\u009f\\x7f\xa0\u0180é" in out
    name = tmp_path / "\x9b2J"
    result = ckptring("inspect", name)
    assert (result.returncode, "\x9b" in result.stderr) == (2, False)


def test_a_key_of_any_length_is_whole_in_json(tmp_path):
    keys = ["k" * 5000 + end for end in "ab"]
    torch.save({"x" * 3000: {key: torch.zeros(1) for key in keys}}, tmp_path / "x.pt")
    (found,) = json.loads(ckptring("inspect", "--json", tmp_path / "x.pt").stdout)["files"]
    assert [t["key"] for t in found["tensors"]] == ["x" * 3000 + "." + key for key in keys]


def test_verify_of_a_whole_file(file):
    result = ckptring("verify", file)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{file}: whole, 6 records, ")


def test_verify_names_every_damaged_record_and_goes_on(tmp_path):
    bad = write(tmp_path / "checkpoint_0.pt", storage_bytes=300_000)
    good = write(tmp_path / "checkpoint_1.pt", rank=1)
    for at in (record_start(bad, bytes(range(256)) * 1000) + 299_999,
               bad.read_bytes().rfind(bytes(range(200, 208)))):  # fmt: skip
        damage(bad, at)
    result = ckptring("verify", tmp_path)
    assert result.returncode == 1
    damaged = result.stderr.splitlines()
    assert len(damaged) == 2
    for line, name in zip(damaged, ("data/0", "data/1")):
        assert line.startswith(f"ckptring: verify {bad}: record {name}: its checksum is ")
    assert result.stdout.startswith(f"{good}: whole")


@pytest.mark.parametrize("record", ["version", "byteorder", "ckptring.json", "data.pkl"])
def test_verify_notices_damage_of_each_small_record(record, file):
    contents = {"version": b"3\n", "byteorder": b"little", "ckptring.json": b'{"format',
                "data.pkl": b"_rebuild"}[record]  # fmt: skip
    damage(file, record_start(file, contents))
    result = ckptring("verify", file)
    assert result.returncode == 1
    assert f"record {record}: its checksum" in result.stderr


def test_verify_notices_any_damaged_byte_of_a_payload(file):
    start = record_start(file, bytes(range(48)))
    for at in range(start, start + 48):
        damage(file, at)
        result = ckptring("verify", file)
        assert (result.returncode, "record data/0" in result.stderr) == (1, True), at
        damage(file, at)
    assert ckptring("verify", file).returncode == 0


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_truncated_file_is_damaged(command, file):
    os.truncate(file, file.stat().st_size - 1)
    result = ckptring(command, file)
    assert result.returncode == 1
    assert result.stderr == (f"ckptring: read {file}: the end of central directory record is "
                             "missing: the file is cut off\n")  # fmt: skip


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_what_cannot_be_read_ends_with_2(command, tmp_path):
    missing = ckptring(command, tmp_path / "missing")
    assert missing.returncode == 2
    assert missing.stderr.startswith("ckptring: ") and "No such file" in missing.stderr
    empty = ckptring(command, tmp_path)
    assert empty.returncode == 2
    assert "no checkpoint_{rank}.pt is in it" in empty.stderr
    torch.save([1], tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    old = ckptring(command, tmp_path / "old.pt")
    assert (old.returncode, "old format" in old.stderr) == (2, True)


@pytest.mark.parametrize("command", ["inspect", "verify", "clean"])
def test_a_link_that_leads_to_nothing_is_named(command, tmp_path):
    (tmp_path / "link").symlink_to("nothing")
    for path in (tmp_path / "link", tmp_path / "link/run"):
        result = ckptring(command, path)
        assert result.returncode == 2
        assert f"{tmp_path / 'link'} is a symbolic link, and leads to nothing" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], ["inspect"], ["frobnicate"], ["inspect", "a", "b"], ["verify", "--json", "a"],
     ["clean", "x", "--min-age", "-1"], ["clean", "x", "--min-age", "soon"]],
)  # fmt: skip
def test_wrong_usage_ends_with_2(arguments):
    result = ckptring(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("ckptring: ") and result.stderr.count("\n") == 1


def test_help_and_version():
    for arguments in (["--help"], ["verify", "--help"], ["--version"]):
        result = ckptring(*arguments)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout


def test_a_full_disk_behind_the_output_is_an_error(file):
    with open("/dev/full", "w") as full:
        for command in ("inspect", "verify"):
            result = subprocess.run([COMMAND, command, file], stdout=full, stderr=subprocess.PIPE)
            assert result.returncode == 2, command
            assert b"No space left" in result.stderr


def test_no_file_is_opened_as_a_standard_descriptor_that_is_closed(file, tmp_path):
    calls = tmp_path / "calls"
    before = file.read_bytes()
    shell = f"exec strace -o {calls} -e trace=openat {COMMAND} inspect {file} <&- >&- 2>&-"
    result = subprocess.run(["bash", "-c", shell])
    assert result.returncode == 2, "what cannot be printed is an error"
    opened = [line for line in calls.read_text().splitlines() if str(file) in line]
    assert opened and all(int(line.rsplit("=", 1)[1]) > 2 for line in opened), opened
    assert file.read_bytes() == before


def test_progress_is_shown_on_a_terminal_only(tmp_path):
    file = write(tmp_path / "checkpoint_0.pt", storage_bytes=64 << 20)
    ours, theirs = pty.openpty()
    process = subprocess.Popen([COMMAND, "verify", file], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        shown += part
    os.close(ours)
    out, _ = process.communicate()
    assert process.returncode == 0 and b"whole" in out
    assert b"% " in shown and b"GB/s" in shown
    assert shown.endswith(b"\r\x1b[K"), "the line is gone at the end"
    assert ckptring("verify", file).stderr == ""


def test_clean_removes_old_leftovers_only(file, tmp_path):
    name = ".checkpoint_0.pt." + "0123456789abcdef" * 2 + ".tmp"
    old, held, young = (tmp_path / d / name for d in ("a/b", "held", "young"))
    for leftover in (old, held, young):
        leftover.parent.mkdir(parents=True)
        leftover.write_text("half a checkpoint")
    two_hours_ago = time.time() - 7200
    for leftover in (old, held):
        os.utime(leftover, (two_hours_ago, two_hours_ago))
    with open(held) as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        result = ckptring("clean", tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
        lines = result.stdout.splitlines()
        assert lines[0] == f"removed {old}" and lines[-1] == "1 leftover removed"
        assert sorted(lines[1:-1]) == [f"kept, may be in use: {p}" for p in (held, young)]
    assert not old.exists() and held.exists() and young.exists() and file.exists()
    assert ckptring("clean", tmp_path, "--min-age", "0").returncode == 0
    assert not held.exists() and not young.exists() and file.exists()
    assert ckptring("clean", tmp_path / "missing").returncode == 2


def test_it_needs_no_torch():
    needed = subprocess.run(["ldd", COMMAND], capture_output=True, text=True).stdout
    assert "libtorch" not in needed and "libc10" not in needed
