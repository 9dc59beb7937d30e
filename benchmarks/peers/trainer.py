"""Trains a GPT on random tokens, with AdamW, and saves it as it goes in one of the ways that
PyTorch's world has. train/trainer.cpp is the same with this library's ways.

Usage: trainer.py WAY

Takes commands as lines of JSON, and answers each with a line:

  {"train": {"vocabulary", "context", "layers", "heads", "width", "batch", "seed", "threads"},
   "steps": N}
      begins a training with so many steps. {"parameters": N, "bytes": of its state}
  {"prepare": DIRECTORY}
      makes what can be made before the first save, and saves once; {"prepared": SECONDS}
  {"steps": N, "save": DIRECTORY or null}
      trains on, after beginning a save if there is one. {"steps": the seconds of each, the first
      with the call that began the save, "trained": seconds until the last step has ended and
      another save could be begun}. With a save also "held": seconds that the call took, and that
      the loop then waited before it might change the state, and "durable": as "trained", until
      everything is durable

An answer may be {"error": TEXT} instead. Ends at the end of its input.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as functional

from commands import main
from gpt import Gpt
from nested import bytes_of
from ways import WAYS, sync_all


class Training:
    def __init__(self, shape, steps):
        shape = dict(shape)
        torch.set_num_threads(shape.pop("threads"))
        torch.manual_seed(shape.pop("seed"))
        self.size = (shape.pop("batch"), shape["context"])
        self.vocabulary = shape["vocabulary"]
        self.model = Gpt(**shape)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=5e-4, betas=(0.9, 0.99), weight_decay=0.1)
        self.done = 0
        for _ in range(steps):
            self.step(lambda: None)

    def step(self, before_update):
        inputs, targets = torch.randint(self.vocabulary, (2, *self.size))
        scores = self.model(inputs)
        loss = functional.cross_entropy(scores.flatten(0, 1), targets.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        # Until here the parameters were only read; now they change.
        before_update()
        self.optimizer.step()
        self.done += 1
        return loss.item()

    def collect(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                "cpu_generator": torch.get_rng_state(), "step": self.done}


class Saves:
    """One after the other, as a training loop makes them. What is written in the background is
    also synced there, so that the loop does not wait for that."""

    def __init__(self, way):
        self.way = way
        self.syncing = ThreadPoolExecutor(max_workers=1)
        self.wait_staged = self.wait_written = self.synced = None
        self.held = 0

    def begin(self, state, directory):
        began = time.perf_counter()
        directory.mkdir(parents=True)
        self.wait_staged, self.wait_written = self.way.begin(state, directory)
        if self.wait_written:
            self.synced = self.syncing.submit(self.sync, self.wait_written, directory)
        else:
            sync_all(directory)
        self.held = time.perf_counter() - began

    def before_update(self):
        if self.wait_staged:
            began = time.perf_counter()
            self.wait_staged()
            self.held += time.perf_counter() - began
            self.wait_staged = None

    def wait_for_turn(self):
        """Until another save may be begun."""
        if self.wait_written:
            self.wait_written()

    def finish(self):
        if self.synced:
            self.synced.result()
            self.synced = None

    @staticmethod
    def sync(wait_written, directory):
        wait_written()
        sync_all(directory)


class Trainer:
    def __init__(self, way):
        self.way = way
        self.saves = None

    def answer_to(self, command):
        if "train" in command:
            self.training = Training(command["train"], command["steps"])
            return {"parameters": sum(one.numel() for one in self.training.model.parameters()),
                    "bytes": bytes_of(self.training.collect())}
        if "prepare" in command:
            return self.prepare(Path(command["prepare"]))
        if command["save"]:
            return self.run_saving(command["steps"], Path(command["save"]))
        steps = self.run(command["steps"])
        return {"steps": steps, "trained": sum(steps)}

    def prepare(self, directory):
        began = time.perf_counter()
        self.way.prepare()
        self.saves = Saves(self.way)
        self.saves.begin(self.training.collect(), directory)
        self.saves.before_update()
        self.saves.finish()
        return {"prepared": time.perf_counter() - began}

    def run(self, steps, before_first=lambda: None, before_update=lambda: None):
        taken = []
        now = time.perf_counter()
        before_first()
        for _ in range(steps):
            self.training.step(before_update)
            taken.append(time.perf_counter() - now)
            now += taken[-1]
        return taken

    def run_saving(self, steps, directory):
        began = time.perf_counter()
        taken = self.run(steps, lambda: self.saves.begin(self.training.collect(), directory),
                         self.saves.before_update)
        self.saves.wait_for_turn()
        trained = time.perf_counter() - began
        self.saves.finish()
        return {"steps": taken, "held": self.saves.held, "trained": trained,
                "durable": time.perf_counter() - began}

    def close(self):
        if self.saves:
            self.way.close()


if __name__ == "__main__":
    main(WAYS, lambda way: Trainer(WAYS[way]()))
