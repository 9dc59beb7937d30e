"""Draws what tools/bench soak measured.

Usage: plot_soak.py NUMBERS.json PICTURE.png
"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main():
    with open(sys.argv[1]) as file:
        found = json.load(file)
    series = found["series"]
    saves = found["parameters"]["saves"]
    figure, (memory, counts) = plt.subplots(2, 1, figsize=(9, 6), sharex=True,
                                            layout="constrained")
    for axes, names in ((memory, ("trainer_memory", "helper_memory")),
                        (counts, ("trainer_descriptors", "trainer_threads", "trainer_children",
                                  "helper_descriptors", "helper_threads"))):
        for name in names:
            samples = series[name]["samples"]
            across = [saves * (i + 1) / len(samples) for i in range(len(samples))]
            axes.plot(across, samples, label=series[name]["label"])
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, loc="center right")
    memory.set_ylabel("MiB of their own")
    counts.set_ylabel("count")
    counts.set_xlabel("saves")
    figure.suptitle(
        f"{saves} saves, checkpoint process killed "
        f"{found['parameters']['kills_of_the_checkpoint_process']} times; {found['date'][:10]}",
        fontsize=9)
    figure.savefig(sys.argv[2], dpi=120)


if __name__ == "__main__":
    main()
