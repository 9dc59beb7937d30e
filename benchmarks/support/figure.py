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


def color(contestant):
    """Ours, the machine's limits, the others."""
    if contestant.startswith(("async", "sync", "ckptring")):
        return "C0"
    return "C7" if contestant in ("memcpy", "pread", "bare", "fio") else "C1"


def bars(axes, rows, unit):
    """A bar for each of `rows` (contestant, label, series): the median with its quartiles."""
    for place, (contestant, _, one) in enumerate(rows):
        axes.barh(place, one["median"], color=color(contestant), alpha=0.5)
        axes.plot([one["lower"], one["upper"]], [place, place], color="black", linewidth=1)
        axes.annotate(f" {one['median']:.3g}", (max(one["upper"], 0), place), va="center",
                      fontsize=7)
    axes.set_yticks(range(len(rows)), [label for _, label, _ in rows], fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(unit)


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
