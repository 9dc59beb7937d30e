"""Saves a state in one of the ways that PyTorch's world has, and says how long it took.

Usage: saver.py WAY

Takes commands as lines of JSON, and answers each with a line:

  {"state": [{"path": KEYS, "sizes": SIZES}, {"path": KEYS, "value": NUMBER}, ...]}
      builds nested dicts of float32 tensors filled with random numbers; {"bytes": N}
  {"prepare": true}
      makes what can be made before the first save; {"prepared": SECONDS}
  {"save": DIRECTORY}
      saves into it. {"returned", "staged", "written", "durable"}: seconds since the call until it
      returned, until the state might change again (null if that is when it returned), until
      everything was written, until every file and directory was synced as well

An answer may be {"error": TEXT} instead. Ends at the end of its input.
"""

import json
import os
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path

import safetensors.torch
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.distributed.checkpoint._experimental as experimental
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType


def write_torch_save(state):
    return lambda directory: torch.save(state, directory / "checkpoint.pt")


def write_safetensors(state):
    """Takes flat dicts only; what is no tensor becomes a string beside them."""
    tensors, others = {}, {}

    def flatten(value, name):
        if isinstance(value, dict):
            for key, inner in value.items():
                flatten(inner, f"{name}.{key}" if name else str(key))
        elif isinstance(value, torch.Tensor):
            tensors[name] = value
        else:
            others[name] = str(value)

    def write(directory):
        tensors.clear()
        others.clear()
        flatten(state, "")
        safetensors.torch.save_file(tensors, directory / "checkpoint.safetensors", others)

    return write


def write_dcp(state):
    return lambda directory: dcp.save(state, storage_writer=unsynced(directory), no_dist=True)


def write_experimental(state):
    checkpointer = experimental.make_sync_checkpointer()
    return lambda directory: checkpointer.save(str(directory), state)


class InTheForeground:
    """A call that returns when everything is written."""

    def __init__(self, make_write):
        self.make_write = make_write

    def prepare(self, state):
        self.write = self.make_write(state)

    def begin(self, directory):
        self.write(directory)
        return None, None

    def close(self):
        pass


def unsynced(directory):
    """DCP's own writer with its defaults, but synced here, like all others."""
    return dcp.FileSystemWriter(directory, sync_files=False)


class Dcp:
    """torch.distributed.checkpoint.async_save; `kept`: with a stager of these options that copies
    in the background, and keeps its copy from one save to the next."""

    def __init__(self, kind, kept=None):
        self.kind = kind
        self.kept = kept

    def prepare(self, state):
        self.state = state
        # The process wants a group to be there.
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        self.stager = DefaultStager(self.kept) if self.kept else None

    def begin(self, directory):
        # The stager that async_save makes for itself where no writer is given.
        stager = self.stager or DefaultStager(StagingOptions(False, False, False, False))
        response = dcp.async_save(
            self.state, storage_writer=unsynced(directory), async_checkpointer_type=self.kind,
            async_stager=stager)
        if self.kept:
            self.upload = response.upload_completion
            return response.staging_completion.result, response.upload_completion.result
        response.add_done_callback(lambda _: stager.close())
        return None, response.result

    def close(self):
        if self.stager:
            self.stager.close()
        dist.destroy_process_group()


class ExperimentalAsync:
    """torch.distributed.checkpoint._experimental with everything that works without CUDA."""

    def prepare(self, state):
        self.state = state
        self.checkpointer = experimental.make_async_checkpointer(
            experimental.CheckpointerConfig(staging_config=experimental.CheckpointStagerConfig(
                use_pinned_memory=False, use_non_blocking_copy=False)))
        # Its process starts in the background; a trainer's first save comes later than that.
        self.checkpointer._checkpoint_process.process_creation_future.result()

    def begin(self, directory):
        staged, written = self.checkpointer.save(str(directory), self.state)
        return staged.result, written.result

    def close(self):
        self.checkpointer.close()


WAYS = {
    "torch_save": lambda: InTheForeground(write_torch_save),
    "safetensors": lambda: InTheForeground(write_safetensors),
    "dcp": lambda: InTheForeground(write_dcp),
    "dcp_thread": lambda: Dcp(AsyncCheckpointerType.THREAD),
    "dcp_process": lambda: Dcp(AsyncCheckpointerType.PROCESS),
    "dcp_shared": lambda: Dcp(AsyncCheckpointerType.PROCESS, StagingOptions(
        use_pinned_memory=False, use_shared_memory=True, use_async_staging=True,
        use_non_blocking_copy=False)),
    "experimental": lambda: InTheForeground(write_experimental),
    "experimental_async": ExperimentalAsync,
}


def build(entries):
    state = {}
    count = 0
    for entry in entries:
        inner = state
        for key in entry["path"][:-1]:
            inner = inner.setdefault(key, {})
        if "sizes" in entry:
            inner[entry["path"][-1]] = torch.empty(entry["sizes"]).uniform_(-1, 1)
            count += 1
        else:
            inner[entry["path"][-1]] = entry["value"]
    # By default each shared tensor is an open file; with very many PyTorch says to do this.
    if 2 * count > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
        torch.multiprocessing.set_sharing_strategy("file_system")
    return state


def bytes_of(value):
    if isinstance(value, dict):
        return sum(bytes_of(inner) for inner in value.values())
    return value.nbytes if isinstance(value, torch.Tensor) else 0


def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(directory):
    for folder, _, files in os.walk(directory):
        for name in files:
            sync(os.path.join(folder, name))
        sync(folder)
    sync(directory.parent)


def save(way, directory):
    directory.mkdir(parents=True)
    began = time.perf_counter()
    wait_staged, wait_written = way.begin(directory)
    taken = {"returned": time.perf_counter() - began, "staged": None}
    if wait_staged:
        wait_staged()
        taken["staged"] = time.perf_counter() - began
    if wait_written:
        wait_written()
    taken["written"] = time.perf_counter() - began
    sync_all(directory)
    taken["durable"] = time.perf_counter() - began
    return taken


class Saves:
    """Answers the commands of one run."""

    def __init__(self, way):
        self.way = way
        self.state = None

    def build(self, entries):
        return build(entries)

    def answer(self, command):
        if "state" in command:
            self.state = self.build(command["state"])
            return {"bytes": bytes_of(self.state)}
        if "prepare" in command:
            began = time.perf_counter()
            self.way.prepare(self.state)
            return {"prepared": time.perf_counter() - began}
        return save(self.way, Path(command["save"]))

    def close(self):
        if self.state is not None:
            self.way.close()


def serve(saves, commands, answers):
    for line in commands:
        command = json.loads(line)
        try:
            answer = saves.answer(command)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
        # A description of many tensors is not part of what a save needs.
        line = command = None
    saves.close()


def obey(make_saves):
    """Takes commands until their end. `make_saves` is called once nothing else can speak there."""
    # Kept from the processes that some ways start, and from whoever prints.
    commands = os.fdopen(os.dup(0))
    answers = os.fdopen(os.dup(1), "w")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    serve(make_saves(), commands, answers)


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in WAYS:
        sys.exit(f"usage: saver.py {'|'.join(WAYS)}")
    obey(lambda: Saves(WAYS[sys.argv[1]]()))


if __name__ == "__main__":
    main()
