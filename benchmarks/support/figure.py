"""What the plots share: numbers in, picture out."""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def subplots(rows, columns, size, **options):
    return plt.subplots(rows, columns, figsize=size, layout="constrained", **options)


def spread(found):
    """Distances of the quartiles from the medians, as errorbar wants them."""
    return [[one["median"] - one["lower"] for one in found],
            [one["upper"] - one["median"] for one in found]]


def lines_by_size(axes, sizes, lines):
    """A line with its quartiles for each of `lines` (label, one series for each size)."""
    for place, (label, found) in enumerate(lines):
        axes.errorbar(sizes, [one["median"] for one in found], yerr=spread(found), marker="o",
                      capsize=3, color=f"C{place}", label=label)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.minorticks_off()


def main(usage, draw):
    """Calls `draw` with the numbers of the JSON file that the command line names first, and writes
    the figure that it returns to the picture that is named second."""
    if len(sys.argv) != 3:
        sys.exit(usage.strip().splitlines()[-1])
    with open(sys.argv[1]) as file:
        found = json.load(file)
    draw(found).savefig(sys.argv[2], dpi=120)
