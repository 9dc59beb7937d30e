"""Draws what tools/bench train measured.

Usage: plot_train.py NUMBERS.json PICTURE.png
"""

from statistics import median

from support import figure as figures


def trainers(series, model):
    """Names in the order of the table, and their labels."""
    return {name.split(".")[1]: one["label"] for name, one in series.items()
            if name.startswith(model + ".")}


def by_place(samples, steps):
    """Of each step of a run, the median over the runs."""
    return [median(samples[place::steps]) for place in range(steps)]


def step_times(axes, series, model, names, parameters):
    """The steps of a run in their order, and marks where saves were begun."""
    steps = parameters["steps"]
    places = range(1, steps + 1)
    for place, (name, label) in enumerate(names.items()):
        axes.plot(places, by_place(series[f"{model}.{name}.steps_with"]["samples"], steps),
                  label=label, linewidth=2 if name == "async" else 1, color=f"C{place}",
                  marker="o" if name == "async" else ".", markersize=4)
    axes.plot(places, by_place(series[f"{model}.async.steps_without"]["samples"], steps),
              label="ckptring's loop without checkpoints", color="black", linestyle=":")
    for saved in range(0, steps, parameters["save_every"]):
        axes.axvline(saved + 0.5, color="grey", linewidth=0.5)
    axes.set_xticks(range(1, steps + 1, parameters["save_every"]))
    axes.set_xlabel("step (lines: a save is begun)")
    axes.set_ylabel("ms")
    axes.set_yscale("log")
    axes.legend(fontsize=7)
    axes.set_title(f"{model}: time of each step (medians of the pairs)", fontsize=9)


def bars(axes, series, model, names, quantity, unit, title):
    figures.bars(axes, [(name, label, series[f"{model}.{name}.{quantity}"])
                        for name, label in names.items()], unit)
    axes.set_title(title, fontsize=9)


def draw(found):
    series = found["series"]
    machine = found["machine"]
    parameters = found["parameters"]
    models = parameters["models"]
    figure, axes = figures.subplots(len(models), 3, (20, 5 * len(models)), squeeze=False)
    for row, model in zip(axes, models):
        name = model["name"]
        names = trainers(series, name)
        step_times(row[0], series, name, names, parameters)
        bars(row[1], series, name, names, "lost", "ms", "Training time lost per checkpoint")
        bars(row[2], series, name, names, "worst_with", "ms", "The worst step")
        row[2].axvline(series[f"{name}.async.steps_without"]["median"], color="grey",
                       linestyle=":", linewidth=1)
    what = ", ".join(f"{one['name']}: {one['state_bytes'] / 1e9:.2f} GB" for one in models)
    figure.suptitle(
        f"{what}; saved every {parameters['save_every']} steps, {parameters['pairs']} pairs of "
        f"{parameters['steps']} steps; {machine['processor']}, {machine['cores']} cores, "
        f"{parameters['file_system']}, {found['date'][:10]}", fontsize=9)
    return figure


if __name__ == "__main__":
    figures.main(__doc__, draw)
