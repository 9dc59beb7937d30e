"""Draws what tools/bench train measured.

Usage: plot_train.py NUMBERS.json PICTURE.png
"""

from statistics import median

from support import figure as figures


def trainers(series, model):
    """Names in the order of the table, and their labels."""
    return {name.split(".")[1]: one["label"] for name, one in series.items()
            if name.startswith(model + ".")}


def step_times(axes, series, model, names, save_every):
    """The steps after a save in their order, medians over all saves, each beyond what a step
    without checkpoints takes in the same loop."""
    places = range(1, save_every + 1)
    lines = []
    for place, name in enumerate(names):
        samples = series[f"{model}.{name}.steps_with"]["samples"]
        usual = series[f"{model}.{name}.steps_without"]["median"]
        lines += axes.plot(
            places, [median(samples[at::save_every]) - usual for at in range(save_every)],
            linewidth=2 if name == "async" else 1, color=f"C{place}",
            marker="o" if name == "async" else ".", markersize=4)
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set_xticks(places)
    axes.set_xlabel("step after a save was begun")
    axes.set_ylabel("ms")
    axes.set_yscale("symlog", linthresh=10)
    # Given here, since labels of lines that begin with an underscore are left out.
    axes.legend(lines, names.values(), fontsize=7)
    axes.set_title(f"{model}: steps beyond those without checkpoints (medians)", fontsize=9)


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
        step_times(row[0], series, name, names, parameters["save_every"])
        bars(row[1], series, name, names, "lost", "ms", "Training time lost per checkpoint")
        bars(row[2], series, name, names, "worst_with", "ms", "The worst step")
        row[2].axvline(series[f"{name}.async.steps_without"]["median"], color="grey",
                       linestyle=":", linewidth=1)
    what = ", ".join(f"{one['name']}: {one['state_bytes'] / 1e9:.2f} GB" for one in models)
    figure.suptitle(
        f"{what}; saved every {parameters['save_every']} steps, {parameters['rounds']} rounds of "
        f"{parameters['steps']} steps with and without; {machine['processor']}, "
        f"{machine['cores']} cores, {parameters['file_system']}, {found['date'][:10]}",
        fontsize=9)
    return figure


if __name__ == "__main__":
    figures.main(__doc__, draw)
