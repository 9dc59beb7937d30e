"""Draws what tools/bench restart measured.

Usage: plot_restart.py NUMBERS.json PICTURE.png
"""

from support import figure as figures


def draw(found):
    series = found["series"]
    sizes = found["parameters"]["resident_gib"]
    figure, (times, twice) = figures.subplots(1, 2, (11, 4.5))
    for place, (name, label) in enumerate([
            ("draining", "until blocks were written again"),
            ("beyond", "the same beyond the dead process's own writes"),
            ("started", "until another process was started"),
            ("forked", "beside it: a bare fork of the trainer")]):
        of_sizes = [series[f"{name}_{size:g}gib"] for size in sizes]
        medians = [one["median"] for one in of_sizes]
        spread = [[one["median"] - one["lower"] for one in of_sizes],
                  [one["upper"] - one["median"] for one in of_sizes]]
        times.errorbar(sizes, medians, yerr=spread, marker="o", capsize=3, color=f"C{place}",
                       label=label)
    times.axhline(10, color="grey", linestyle=":", linewidth=1)
    times.set_xscale("log")
    times.set_yscale("log")
    times.set_xticks(sizes, [f"{size:g}" for size in sizes])
    times.set_xlabel("GiB resident in the trainer")
    times.set_ylabel("ms since SIGKILL")
    times.legend(fontsize=8)
    times.set_title("The checkpoint process was killed")
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
