"""Draws what tools/bench cuda measured on a device.

Usage: plot_cuda.py NUMBERS.json PICTURE.png
"""

from support import figure as figures


def bars(axes, series, names):
    """A bar for each of `names` that was measured, with its quartiles."""
    found = [(name, series[name]) for name in names if name in series]
    medians = [one["median"] for _, one in found]
    axes.barh(range(len(found)), medians, xerr=figures.spread([one for _, one in found]),
              color=[f"C{place}" for place in range(len(found))], capsize=3)
    axes.set_yticks(range(len(found)), [one["label"] for _, one in found], fontsize=8)
    axes.set_xlim(left=0)
    axes.invert_yaxis()


def draw(found):
    series = found["series"]
    peers = ("dcp_pinned_thread", "dcp_pinned_process")
    figure, (staging, held, training) = figures.subplots(3, 1, (10, 9))
    bars(staging, series, ["limit", "each", "staged", *(f"{peer}.staged" for peer in peers)])
    staging.set_xlabel("GB/s")
    staging.set_title("From the device into host memory")
    bars(held, series, ["returned", "fenced", *(f"{peer}.returned" for peer in peers)])
    held.set_xlabel("ms")
    held.set_title("The caller is held")
    bars(training, series, ["step", "step_saving", *(
        f"{peer}.{name}" for peer in peers for name in ("step", "step_saving"))])
    training.set_xlabel("ms")
    training.set_title("A step of training")
    devices = found["machine"].get("nvidia", {}).get("devices", ["device unknown"])
    figure.suptitle(f"{', '.join(devices)}, {found['date'][:10]}", fontsize=9)
    return figure


if __name__ == "__main__":
    figures.main(__doc__, draw)
