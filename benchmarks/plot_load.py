"""Draws what tools/bench load measured.

Usage: plot_load.py NUMBERS.json PICTURE.png
"""

from support import figure as figures

KINDS = [("in_place", "Into a state that is there"), ("full", "A new state"),
         ("partial", "Every tenth tensor")]


def contestants(series):
    """Names in the order of the table, and their labels."""
    found = {}
    for name, one in series.items():
        found.setdefault(name.split(".")[1], one["label"])
    return found


def draw(found):
    series = found["series"]
    machine = found["machine"]
    parameters = found["parameters"]
    state = parameters["state"][0]
    figure, axes = figures.subplots(2, 3, (18, 7.5))
    for row, cache in zip(axes, ("warm", "cold")):
        for panel, (kind, title) in zip(row, KINDS):
            figures.bars(panel, [
                (name, label, series[f"load.{name}.{kind}_{cache}"])
                for name, label in contestants(series).items()
                if f"load.{name}.{kind}_{cache}" in series], "GB/s")
            panel.set_title(f"{title}, {cache} page cache", fontsize=9)
    figure.suptitle(
        f"{state['bytes'] / 1e9:.2f} GB in {state['tensors']} tensors, in part "
        f"{state['partial_bytes'] / 1e9:.2f} GB in {state['partial_tensors']}; "
        f"{parameters['threads']} thread(s), {parameters['pairs']} rounds; "
        f"{machine['processor']}, {machine['cores']} cores, {parameters['file_system']}, "
        f"{found['date'][:10]}", fontsize=9)
    return figure


if __name__ == "__main__":
    figures.main(__doc__, draw)
