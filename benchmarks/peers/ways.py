"""The ways to save that PyTorch's world has.

WAYS maps the name of each to a function that makes one. One offers

  prepare()
      makes what can be made before the first save
  begin(state, directory)
      saves nested dicts of tensors and numbers into an empty directory. Returns two functions that
      wait: until the state may change again, and until everything is written. None instead of
      either where that is so on return. A trainer must have waited for both before the next one
  close()

What is written is not synced: see sync_all.
"""

import os

import safetensors.torch
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.distributed.checkpoint._experimental as experimental
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType


def write_torch_save():
    return lambda state, directory: torch.save(state, directory / "checkpoint.pt")


def write_safetensors():
    """Takes flat dicts only; what is no tensor becomes a string beside them."""

    def flatten(value, name, tensors, others):
        if isinstance(value, dict):
            for key, inner in value.items():
                flatten(inner, f"{name}.{key}" if name else str(key), tensors, others)
        elif isinstance(value, torch.Tensor):
            tensors[name] = value
        else:
            others[name] = str(value)

    def write(state, directory):
        tensors, others = {}, {}
        flatten(state, "", tensors, others)
        safetensors.torch.save_file(tensors, directory / "checkpoint.safetensors", others)

    return write


def write_dcp():
    return lambda state, directory: dcp.save(
        state, storage_writer=unsynced(directory), no_dist=True)


def write_experimental():
    checkpointer = experimental.make_sync_checkpointer()
    return lambda state, directory: checkpointer.save(str(directory), state)


class InTheForeground:
    """A call that returns when everything is written."""

    def __init__(self, make_write):
        self.make_write = make_write

    def prepare(self):
        self.write = self.make_write()

    def begin(self, state, directory):
        self.write(state, directory)
        return None, None

    def close(self):
        pass


def unsynced(directory):
    """DCP's own writer with its defaults, but synced by sync_all, like all others."""
    return dcp.FileSystemWriter(directory, sync_files=False)


class Dcp:
    """torch.distributed.checkpoint.async_save; `kept`: with a stager of these options that copies
    in the background, and keeps its copy from one save to the next; `upload` is then the future of
    the save that was begun last."""

    def __init__(self, kind, kept=None):
        self.kind = kind
        self.kept = kept

    def prepare(self):
        os.environ["MASTER_ADDR"] = "127.0.0.1"
        # The process wants a group to be there.
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        self.stager = DefaultStager(self.kept) if self.kept else None

    def begin(self, state, directory):
        # The stager that async_save makes for itself where no writer is given.
        stager = self.stager or DefaultStager(StagingOptions(False, False, False, False))
        response = dcp.async_save(
            state, storage_writer=unsynced(directory), async_checkpointer_type=self.kind,
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

    def prepare(self):
        self.checkpointer = experimental.make_async_checkpointer(
            experimental.CheckpointerConfig(staging_config=experimental.CheckpointStagerConfig(
                use_pinned_memory=False, use_non_blocking_copy=False)))
        # Its process starts in the background; a trainer's first save comes later than that.
        self.checkpointer._checkpoint_process.process_creation_future.result()

    def begin(self, state, directory):
        staged, written = self.checkpointer.save(str(directory), state)
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


def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(directory):
    """Every file and folder in it, and what holds it."""
    for folder, _, files in os.walk(directory):
        for name in files:
            sync(os.path.join(folder, name))
        sync(folder)
    sync(directory.parent)
