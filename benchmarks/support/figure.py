"""What the plots share: numbers in, picture out."""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def subplots(rows, columns, size, **options):
    return plt.subplots(rows, columns, figsize=size, layout="constrained", **options)


def main(usage, draw):
    """Calls `draw` with the numbers of the JSON file that the command line names first, and writes
    the figure that it returns to the picture that is named second."""
    if len(sys.argv) != 3:
        sys.exit(usage.strip().splitlines()[-1])
    with open(sys.argv[1]) as file:
        found = json.load(file)
    draw(found).savefig(sys.argv[2], dpi=120)
