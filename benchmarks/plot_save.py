"""Draws what tools/bench save measured.

Usage: plot_save.py NUMBERS.json PICTURE.png
"""

from support import figure as figures


def contestants(series, shape):
    """Names in the order of the table, and their labels."""
    found = {}
    for name, one in series.items():
        part, contestant, _ = name.split(".", 2)
        if part == shape:
            found.setdefault(contestant, one["label"])
    return found


def bars(axes, series, shape, metrics, unit, marked=None, logarithmic=False):
    """A bar for each contestant that has one of the metrics, the first that it has, and a cross for
    what `marked` is."""
    rows = []
    for contestant, label in contestants(series, shape).items():
        for metric in metrics:
            one = series.get(f"{shape}.{contestant}.{metric}")
            if one:
                rows.append((contestant, label, one))
                break
    figures.bars(axes, rows, unit)
    for place, (contestant, _, _) in enumerate(rows):
        other = series.get(f"{shape}.{contestant}.{marked}")
        if other:
            axes.plot(other["median"], place, "x", color="black", markersize=4)
    if logarithmic:
        axes.set_xscale("log")


def phases(axes, series, shape):
    """Staging and draining run side by side; the rest follows one after the other."""
    median = {name: series[f"{shape}.async.{name}"]["median"]
              for name in ("planned", "copied", "drained", "fsync", "commit")}
    begin = median["planned"]
    spans = [("planned", 0, median["planned"]), ("staged", begin, median["copied"]),
             ("drained", begin, median["drained"])]
    begin += median["drained"]
    spans.append(("fsync", begin, median["fsync"]))
    spans.append(("commit", begin + median["fsync"], median["commit"]))
    for place, (name, start, length) in enumerate(spans):
        axes.barh(place, length, left=start, color=f"C{place}")
        axes.annotate(f" {length:.3g} ms", (start + length, place), va="center", fontsize=7)
    axes.set_yticks(range(len(spans)), [name for name, _, _ in spans], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * max(start + length for _, start, length in spans))
    axes.set_xlabel("ms since save was called")
    axes.set_title("An async save (medians)", fontsize=9)


def draw_shape(row, series, shape):
    staged, durable, memory, spans = row
    name = shape["name"]
    bars(staged, series, name, ["staged", "returned"], "ms", marked="first_staged",
         logarithmic=True)
    staged.set_title(f"{name}: until the state may change again (x: first save)", fontsize=9)
    bars(durable, series, name, ["durable"], "GB/s", marked="written")
    durable.set_title("Until it is durable (x: without fsync)", fontsize=9)
    bars(memory, series, name, ["memory"], "MiB")
    memory.axvline(shape["state_bytes"] / 2**20, color="grey", linestyle=":", linewidth=1)
    memory.set_title("Memory beyond the state (dotted: a copy of it)", fontsize=9)
    if f"{name}.async.planned" in series:
        phases(spans, series, name)
    else:
        spans.set_axis_off()


def growth(axes, series, sizes, metrics, unit, title):
    figures.lines_by_size(axes, sizes, [
        (label, [series[f"growth.{size:g}gb.{metric}"] for size in sizes])
        for metric, label in metrics])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("GB of state")
    axes.set_ylabel(unit)
    axes.legend(fontsize=7)
    axes.set_title(title, fontsize=9)


def draw_growth(row, series, sizes):
    growth(row[0], series, sizes, [("staged", "until staged")], "ms per GB",
           "growth: until the state may change again")
    growth(row[1], series, sizes, [("durable", "until durable")], "ms per GB",
           "Until it is durable")
    growth(row[2], series, sizes, [("memory", "beyond the state")], "MiB per GB",
           "Memory of trainer and helper")
    growth(row[3], series, sizes, [("beyond_ring", "beyond the ring")], "MiB",
           "The same beyond the ring")


def draw(found):
    series = found["series"]
    machine = found["machine"]
    parameters = found["parameters"]
    shapes = parameters.get("shapes", [])
    sizes = sorted(parameters["growth_gigabytes"])
    rows = len(shapes) + (1 if sizes else 0)
    figure, axes = figures.subplots(rows, 4, (20, 4.8 * rows), squeeze=False)
    for row, shape in zip(axes, shapes):
        draw_shape(row, series, shape)
    if sizes:
        draw_growth(axes[-1], series, sizes)
    what = ", ".join(f"{one['name']}: {one['state_bytes'] / 1e9:.2f} GB in {one['tensors']} tensors"
                     for one in shapes)
    figure.suptitle(
        f"{what + '; ' if what else ''}{parameters['copy_threads']} copying thread(s), "
        f"{parameters['pairs']} rounds; {machine['processor']}, {machine['cores']} cores, "
        f"{parameters['file_system']}, {found['date'][:10]}", fontsize=9)
    return figure


if __name__ == "__main__":
    figures.main(__doc__, draw)
