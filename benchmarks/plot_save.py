"""Draws what tools/bench save measured.

Usage: plot_save.py NUMBERS.json PICTURE.png
"""

import textwrap

from support import figure as figures


def strip(axes, series, names, unit):
    """Each sample as a point, the middle half as a bar, the median as a line."""
    present = [series[name] for name in names if name in series]
    for place, one in enumerate(present):
        count = len(one["samples"])
        # Spread out in the order of measurement, so that a drift shows.
        across = [place + 0.3 * (i / max(count - 1, 1) - 0.5) for i in range(count)]
        axes.bar(place, one["upper"] - one["lower"], bottom=one["lower"], width=0.5,
                 color=f"C{place}", alpha=0.3)
        axes.hlines(one["median"], place - 0.25, place + 0.25, color=f"C{place}")
        axes.plot(across, one["samples"], ".", color=f"C{place}", markersize=4)
        axes.annotate(f"{one['median']:.4g}", (place + 0.28, one["median"]), va="center",
                      fontsize=8)
    labels = [textwrap.fill(one["label"], 15) for one in present]
    axes.set_xticks(range(len(present)), labels, fontsize=8)
    axes.set_xlim(-0.5, len(present) - 0.2)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(unit)


def phases(axes, series):
    """Staging and draining run side by side; the rest follows one after the other."""
    median = {name: series[name]["median"]
              for name in ("planned", "copied", "drained", "fsync", "commit")}
    begin = median["planned"]
    spans = [("planned", 0, median["planned"]), ("staged", begin, median["copied"]),
             ("drained", begin, median["drained"])]
    begin += median["drained"]
    spans.append(("fsync", begin, median["fsync"]))
    spans.append(("commit", begin + median["fsync"], median["commit"]))
    for place, (name, start, length) in enumerate(spans):
        axes.barh(place, length, left=start, color=f"C{place}")
        axes.annotate(f" {length:.3g} ms", (start + length, place), va="center", fontsize=8)
    axes.set_yticks(range(len(spans)), [name for name, _, _ in spans], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(start + length for _, start, length in spans))
    axes.set_xlabel("ms since save was called")


def draw(found):
    series = found["series"]
    machine = found["machine"]
    parameters = found["parameters"]
    figure, (staged, rates, spans) = figures.subplots(1, 3, (14, 4.5))
    strip(staged, series, ["staged", "memcpy"], "ms")
    staged.set_title("Until the state may change again")
    strip(rates, series, ["async_rate", "sync_rate", "bare_rate", "fio_rate"], "GB/s")
    rates.set_title("Until it is durable")
    phases(spans, series)
    spans.set_title("An async save (medians)")
    figure.suptitle(
        f"{parameters['file_bytes'] / 1e9:.2f} GB, {parameters['tensors']} tensors, "
        f"{parameters['copy_threads']} copying thread(s), {parameters['pairs']} rounds; "
        f"{machine['processor']}, {machine['cores']} cores, {parameters['file_system']}, "
        f"{found['date'][:10]}", fontsize=9)
    return figure


if __name__ == "__main__":
    figures.main(__doc__, draw)
