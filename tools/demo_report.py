"""Reads what tools/demo left behind and says what came of it.

Usage: demo_report.py DIRECTORY STEPS. Exits with 1 if the losses differ.
"""

import json
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch


def read_losses(path):
    """(step, loss as it was written), in the order of writing."""
    pairs = [line.split() for line in path.read_text().splitlines()]
    return [(int(step), loss) for step, loss in pairs]


def read_record(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def describe(directory):
    """What stock PyTorch finds in the newest checkpoint."""
    newest = sorted((directory / "checkpoints").glob("step_*/checkpoint_0.pt"))[-1]
    state = torch.load(newest, weights_only=True)
    model = state["model"]
    parameters = sum(tensor.numel() for tensor in model.values())
    moments = len(state["optimizer"]["state"])
    group = state["optimizer"]["param_groups"][0]
    print(f"  torch.load(\"{newest}\", weights_only=True):")
    print(f"    step {state['step']}, {len(model)} tensors, {parameters / 1e6:.1f} M parameters,")
    print(f"    AdamW moments of {moments} tensors, learning rate {group['lr']:g},")
    name, tensor = max(model.items(), key=lambda item: item[1].numel())
    print(f"    largest: {name} {tuple(tensor.shape)} {tensor.dtype}, mean {tensor.mean():+.2e}")
    return state["step"]


def draw(path, reference, resumed, resumed_at):
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot([s for s, _ in reference], [float(v) for _, v in reference], color="tab:blue",
              linewidth=4, alpha=0.4, label="uninterrupted")
    # The resumed run appended to the same file, from the step after its checkpoint on.
    cut = max(i for i, (step, _) in enumerate(resumed) if step == resumed_at + 1)
    for part, colour, label in ((resumed[:cut], "tab:orange", "until SIGKILL"),
                                (resumed[cut:], "tab:green", f"resumed at step {resumed_at}")):
        axes.plot([s for s, _ in part], [float(v) for _, v in part], color=colour, label=label)
    axes.set(xlabel="step", ylabel="loss", title="Losses with and without an interruption")
    axes.legend()
    figure.savefig(path, dpi=120)


def table(rows):
    width = max(len(name) for name, _ in rows)
    print()
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def main():
    directory, steps = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    reference = read_losses(directory / "reference.losses")
    resumed = read_losses(directory / "resumed.losses")
    record = read_record(directory / "resumed.record")
    saves = [r for r in record if "saved" in r]
    memory = next((r for r in record if "ring_bytes" in r), None)
    resumed_at = next((r["resumed"] for r in record if "resumed" in r), None)
    if resumed_at is None or memory is None or not saves:
        sys.exit("demo: the second run did not resume from a checkpoint, or could not save")

    if describe(directory) != saves[-1]["saved"]:
        sys.exit("demo: the newest checkpoint is not the last one that was saved")
    plot = directory / "losses.png"
    draw(plot, reference, resumed, resumed_at)

    expected = dict(reference)
    all_steps = set(range(1, steps + 1))
    complete = set(expected) == all_steps and {step for step, _ in resumed} == all_steps
    differing = [step for step, loss in resumed if expected.get(step) != loss]
    identical = complete and not differing

    def step_time(records):
        # The first two steps warm up.
        seconds = [r["seconds"] for r in records if r.get("step", 0) > 2]
        return f"{statistics.median(seconds) * 1e3:.0f} ms (median)"

    held = [r["held_seconds"] * 1e3 for r in saves]
    rates = [r["bytes"] / r["disk_seconds"] / 1e9 for r in saves]
    table([
        ("step time without checkpoints", step_time(read_record(directory / "reference.record"))),
        ("step time with checkpoints", step_time(record)),
        ("checkpoint", f"{saves[-1]['bytes'] / 1e6:.0f} MB, saved {len(saves)} times"),
        ("trainer held per save", f"{statistics.median(held):.1f} ms (median), "
                                  f"{max(held):.1f} ms (longest)"),
        ("write rate until durable", f"{statistics.median(rates):.2f} GB/s (median)"),
        ("extra memory", f"{memory['ring_bytes'] / 2**20:.0f} MiB ring, "
                         f"{memory['helper_bytes'] / 2**20:.1f} MiB checkpoint process"),
        ("resumed at step", resumed_at),
        ("steps computed twice", len(resumed) - len(all_steps)),
        ("losses identical", "yes, to the last bit" if identical else "NO"),
        ("plot of the losses", plot.resolve()),
    ])
    if differing:
        print(f"\ndemo: the losses differ from step {differing[0]} on", file=sys.stderr)
    elif not complete:
        print("\ndemo: some steps are missing", file=sys.stderr)
    sys.exit(0 if identical else 1)


if __name__ == "__main__":
    main()
