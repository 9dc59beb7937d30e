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

import resource
import time
from pathlib import Path

import torch

from commands import main
from nested import bytes_of
from ways import WAYS, sync_all


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


def save(way, state, directory):
    directory.mkdir(parents=True)
    began = time.perf_counter()
    wait_staged, wait_written = way.begin(state, directory)
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


class Saver:
    """Answers the commands of one run."""

    def __init__(self, way):
        self.way = way
        self.state = None

    def build(self, entries):
        return build(entries)

    def answer_to(self, command):
        if "state" in command:
            self.state = self.build(command["state"])
            return {"bytes": bytes_of(self.state)}
        if "prepare" in command:
            began = time.perf_counter()
            self.way.prepare()
            return {"prepared": time.perf_counter() - began}
        return save(self.way, self.state, Path(command["save"]))

    def close(self):
        if self.state is not None:
            self.way.close()


if __name__ == "__main__":
    main(WAYS, lambda way: Saver(WAYS[way]()))
