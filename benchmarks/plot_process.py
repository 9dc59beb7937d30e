"""Draws what tools/bench process measured.

Usage: plot_process.py NUMBERS.json PICTURE.png
"""

from support import figure as figures


def by_size(axes, series, sizes, lines):
    """A line for each of `lines` (name, label) over the trainer's size, with its quartiles."""
    figures.lines_by_size(axes, sizes, [
        (label, [series[f"{name}_{size:g}gib"] for size in sizes]) for name, label in lines])
    axes.set_yscale("log")
    axes.set_xlabel("GiB resident in the trainer")
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15))


def draw(found):
    series = found["series"]
    sizes = found["parameters"]["resident_gib"]
    fork = ("forked", "beside it: a bare fork of the trainer")
    figure, (starts, restarts, twice) = figures.subplots(1, 3, (15, 4.5))
    by_size(starts, series, sizes, [
        fork,
        ("spawned", "clone and exec alone"),
        ("made", "making a checkpointer held the caller"),
        ("ready", "until its checkpoint process was ready"),
        ("first_ready", "first save, until the process of its ring was ready")])
    starts.set_ylabel("ms")
    starts.set_title("A checkpoint process is started")
    by_size(restarts, series, sizes, [
        fork,
        ("draining", "until blocks were written again"),
        ("beyond", "the same beyond the dead process's own writes"),
        ("started", "until another process was started")])
    restarts.axhline(10, color="grey", linestyle=":", linewidth=1)
    restarts.set_ylabel("ms since SIGKILL")
    restarts.set_title("It was killed while it wrote")
    for place, size in enumerate(sizes):
        one = series[f"rewritten_{size:g}gib"]
        twice.plot([place] * len(one["samples"]), one["samples"], ".", color=f"C{place}")
        twice.hlines(one["median"], place - 0.25, place + 0.25, color=f"C{place}")
    twice.set_xticks(range(len(sizes)), [f"{size:g} GiB" for size in sizes])
    twice.set_ylim(bottom=0)
    twice.set_ylabel("MiB written twice, per kill")
    twice.set_title("What is done again")
    figure.suptitle(f"{found['machine']['processor']}, {found['machine']['cores']} cores, "
                    f"{found['date'][:10]}", fontsize=9)
    return figure


if __name__ == "__main__":
    figures.main(__doc__, draw)
