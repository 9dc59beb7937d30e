"""Loads a state in one of the ways that PyTorch's world has, and says how long it took.

Usage: loader.py WAY THREADS

Obeys what load/loader.cpp describes, and one command more:

  {"make": DIRECTORY, "from": FILE}
      saves the state of FILE, a .pt archive, into the new DIRECTORY in this way's format; {}

"seconds" is null where the way has no such load.
"""

import ctypes
import gc
import itertools
import time
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
import torch.distributed.checkpoint._experimental as experimental

from commands import main
from nested import each_tensor

PARTIAL_STEP, PARTIAL_FIRST = 10, 2


def flat(state, name=""):
    """The tensors of nested dicts, by the keys on the way to them, in walking order."""
    tensors = {}
    for key, value in state.items():
        inner = f"{name}.{key}" if name else str(key)
        if isinstance(value, dict):
            tensors.update(flat(value, inner))
        elif isinstance(value, torch.Tensor):
            tensors[inner] = value
    return tensors


def part_of(state, wanted):
    """Nested dicts of the same tensors, but only where `wanted()`, called for each, says so."""
    made = {}
    for key, value in state.items():
        if isinstance(value, dict):
            value = part_of(value, wanted)
            if value:
                made[key] = value
        elif isinstance(value, torch.Tensor) and wanted():
            made[key] = value
    return made


def copy_into(state, loaded):
    for key, value in state.items():
        if isinstance(value, dict):
            copy_into(value, loaded[key])
        elif isinstance(value, torch.Tensor):
            value.copy_(loaded[key])


class TorchLoad:
    FILE = "checkpoint.pt"

    def make(self, state, directory):
        torch.save(state, directory / self.FILE)

    def full(self, directory):
        return torch.load(directory / self.FILE)

    def in_place(self, directory, state):
        copy_into(state, self.full(directory))

    partial = None  # it reads everything


class TorchMmap(TorchLoad):
    def mapped(self, directory):
        return torch.load(directory / self.FILE, mmap=True)

    def full(self, directory):
        return each_tensor(self.mapped(directory), torch.Tensor.clone)

    def in_place(self, directory, state):
        copy_into(state, self.mapped(directory))

    partial = in_place


class Safetensors:
    FILE = "checkpoint.safetensors"

    def make(self, state, directory):
        safetensors.torch.save_file(flat(state), directory / self.FILE)

    def full(self, directory):
        # What it returns is the mapped file, of which nothing has been read yet.
        return each_tensor(safetensors.torch.load_file(directory / self.FILE), torch.Tensor.clone)

    def in_place(self, directory, state):
        with safetensors.safe_open(directory / self.FILE, "pt") as file:
            for name, tensor in flat(state).items():
                tensor.copy_(file.get_tensor(name))

    partial = in_place


class Experimental:
    def __init__(self):
        self.checkpointer = experimental.make_sync_checkpointer()

    def make(self, state, directory):
        self.checkpointer.save(str(directory), state)

    def full(self, directory):
        return self.checkpointer.load(str(directory))

    def in_place(self, directory, state):
        self.checkpointer.load(str(directory), state)

    partial = in_place


class Dcp:
    def make(self, state, directory):
        dcp.save(state, storage_writer=dcp.FileSystemWriter(directory), no_dist=True)

    full = None  # it wants a state to load into

    def in_place(self, directory, state):
        dcp.load(state, storage_reader=dcp.FileSystemReader(directory), no_dist=True)

    partial = in_place


WAYS = {
    "torch_load": TorchLoad,
    "torch_mmap": TorchMmap,
    "safetensors": Safetensors,
    "experimental": Experimental,
    "dcp": Dcp,
}


def load(way, directory, target):
    """Seconds, processor time, and the tensors that were loaded."""
    wanted = flat(target) if target else {}
    for tensor in wanted.values():
        tensor.view(-1)[-1] = 0
    gc.collect()
    # A new state finds as little memory as after a restart.
    ctypes.CDLL(None).malloc_trim(0)
    began, cpu_began = time.perf_counter(), time.process_time()
    made = way(directory, target) if target else way(directory)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    loaded = list((wanted if target else flat(made)).values())
    if any(tensor.view(-1)[-1] == 0 for tensor in loaded):
        raise RuntimeError("a tensor was not loaded")
    return seconds, cpu, loaded


class Loader:
    def __init__(self, way):
        self.way = way

    def answer_to(self, command):
        if "make" in command:
            directory = Path(command["make"])
            directory.mkdir()
            self.way.make(torch.load(command["from"], mmap=True), directory)
            return {}
        if "state" in command:
            self.state = each_tensor(torch.load(command["state"], mmap=True), torch.zeros_like)
            places = itertools.count()
            self.part = part_of(
                self.state, lambda: next(places) % PARTIAL_STEP == PARTIAL_FIRST)
            return {}
        way = getattr(self.way, command["kind"])
        if not way:
            return {"seconds": None}
        target = {"full": None, "in_place": self.state, "partial": self.part}[command["kind"]]
        seconds, cpu, loaded = load(way, Path(command["load"]), target)
        return {"seconds": seconds, "cpu": cpu, "bytes": sum(tensor.nbytes for tensor in loaded)}

    def close(self):
        pass


def make(way, threads):
    torch.set_num_threads(int(threads))
    return Loader(WAYS[way]())


if __name__ == "__main__":
    main(WAYS, make, "THREADS")
