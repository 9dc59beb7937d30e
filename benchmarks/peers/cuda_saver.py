"""Saves a state on a CUDA device by torch.distributed.checkpoint.async_save with pinned staging,
and trains meanwhile.

Usage: cuda_saver.py WAY DEVICE      (DEVICE cpu: with pageable memory, to try this program)

Takes the commands of saver.py, the state being on the device, and two more:

  {"training": {"layers": N, "width": N}}
      makes a training of its own, and a stager for its state; {"bytes": N}
  {"steps": N}, {"steps": N, "during": DIRECTORY}
      {"seconds": [SECONDS, ...]} of each of N steps; or of the steps while a save into the
      directory is under way, which is begun at the first: at least two, N at most
"""

import math
import shutil
import time
from pathlib import Path

import torch
from torch.distributed.checkpoint.staging import StagingOptions
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType

from commands import main
from nested import bytes_of, each_tensor
from saver import Saver, build
from ways import Dcp

KINDS = {
    "dcp_pinned_thread": AsyncCheckpointerType.THREAD,
    "dcp_pinned_process": AsyncCheckpointerType.PROCESS,
}


def way_for(name, device):
    process = KINDS[name] is AsyncCheckpointerType.PROCESS
    pinned = device.type == "cuda"
    # What a process is handed has to be in shared memory.
    return Dcp(KINDS[name], StagingOptions(
        use_pinned_memory=pinned, use_shared_memory=process, use_async_staging=True,
        use_non_blocking_copy=pinned))


class Training:
    """The same steps as benchmarks/cuda/training.cpp."""

    def __init__(self, layers, width, device):
        self.device = device
        bound = math.sqrt(3 / width)

        def random(most):
            return torch.empty(width, width).uniform_(-most, most).to(device)

        self.input = random(1)
        self.weights = [random(bound) for _ in range(layers)]
        self.momenta = [torch.zeros_like(weight) for weight in self.weights]
        self.gradients = [torch.empty_like(weight) for weight in self.weights]
        self.outputs = [torch.empty_like(weight) for weight in self.weights]

    def state(self):
        state = {}
        for i, (weight, momentum) in enumerate(zip(self.weights, self.momenta)):
            state[f"layers.{i}.weight"] = weight
            state[f"layers.{i}.momentum"] = momentum
        return state

    def step(self, before_update):
        inner = self.input
        for weight, gradient, output in zip(self.weights, self.gradients, self.outputs):
            torch.mm(inner, weight, out=output)
            torch.mm(inner.t(), output, out=gradient)
            inner = output
        before_update()
        for weight, momentum, gradient in zip(self.weights, self.momenta, self.gradients):
            momentum.mul_(0.9).add_(gradient, alpha=1e-6)
            weight.add_(momentum, alpha=-1e-6)
        synchronise(self.device)


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class DeviceSaver(Saver):
    def __init__(self, name, device):
        super().__init__(way_for(name, device))
        self.name = name
        self.device = device
        self.training = None

    def build(self, entries):
        return each_tensor(build(entries), lambda tensor: tensor.to(self.device))

    def answer_to(self, command):
        if "training" in command:
            return self.begin_training(**command["training"])
        if "during" in command:
            return {"seconds": self.steps_during_save(command["steps"], Path(command["during"]))}
        if "steps" in command:
            return {"seconds": [self.timed_step(lambda: None) for _ in range(command["steps"])]}
        synchronise(self.device)
        return super().answer_to(command)

    def begin_training(self, layers, width):
        self.way.close()  # a stager keeps the copy of one state
        self.way = way_for(self.name, self.device)
        self.training = Training(layers, width, self.device)
        self.state = self.training.state()
        self.way.prepare()
        return {"bytes": bytes_of(self.state)}

    def timed_step(self, before_update, begin=lambda: None):
        began = time.perf_counter()
        begin()
        self.training.step(before_update)
        return time.perf_counter() - began

    def steps_during_save(self, most, directory):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        waits = []

        def begin():
            waits.extend(self.way.begin(self.state, directory))

        def wait_staged():
            waits[0]()

        seconds = [self.timed_step(wait_staged, begin)]
        upload = self.way.upload
        while len(seconds) < most and (len(seconds) < 2 or not upload.done()):
            seconds.append(self.timed_step(lambda: None))
        waits[1]()
        return seconds


if __name__ == "__main__":
    main(KINDS, lambda name, device: DeviceSaver(name, torch.device(device)), "DEVICE")
