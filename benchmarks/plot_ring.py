"""Draws what tools/bench ring measured.

Usage: plot_ring.py NUMBERS.json PICTURE.png
"""

from support import figure as figures

CHANNELS = [("ring", "ring"), ("ring_spinning", "ring,\nspinning"),
            ("spsc", "spsc\nqueue,\nspinning"), ("message_queue", "message\nqueue"),
            ("pipe", "pipe"), ("socket", "Unix\nsocket")]
IN_TURNS = [("ring", "ring,\nin turns"), ("spsc", "spsc\nqueue,\nin turns"),
            ("message_queue", "message\nqueue,\nin turns")]
ROUND_TRIPS = [("ring", "ring"), ("eventfd", "eventfd\nin read"),
               ("eventfd_poll", "eventfd\nin poll"), ("message_queue", "message\nqueue"),
               ("pipe", "pipe"), ("socket", "Unix\nsocket"), ("ring_spinning", "ring,\nspinning"),
               ("spsc", "spsc\nqueue,\nspinning")]


def in_words(kib):
    if kib == 0:
        return "empty"
    return f"{kib // 1024} MiB" if kib % 1024 == 0 else f"{kib} KiB"


def rates(axes, series, sizes):
    for place, (channel, label) in enumerate(CHANNELS):
        for apart, line in (("processes", "-"), ("threads", ":")):
            found = [series[f"{apart}_{size}kib_{channel}_rate"] for size in sizes]
            axes.errorbar(range(len(sizes)), [one["median"] * 1e3 for one in found],
                          yerr=[[1e3 * value for value in side] for side in figures.spread(found)],
                          marker="o", markersize=3, capsize=2, color=f"C{place}", linestyle=line,
                          label=label.replace("\n", " ") if apart == "processes" else None)
    axes.set_yscale("log")
    axes.set_xticks(range(len(sizes)), [in_words(size) for size in sizes])
    axes.set_ylabel("blocks a second")
    axes.set_title("Handed over (dotted: two threads)")
    axes.legend(fontsize=8)


def processor_times(axes, series, settings):
    """Both sides' processor time for each setting's (key, label) that was measured."""
    found = [(series[f"{key}_first_cpu"], series[f"{key}_second_cpu"], label)
             for key, label in settings if f"{key}_first_cpu" in series]
    for side, (name, shift) in enumerate((("filling side", -0.2), ("reading side", 0.2))):
        sides = [one[side] for one in found]
        axes.bar([place + shift for place in range(len(found))], [one["median"] for one in sides],
                 yerr=figures.spread(sides), width=0.4, capsize=2, color=f"C{side}", label=name)
    axes.axhline(0.5, color="grey", linestyle=":", linewidth=1)
    axes.set_yscale("log")
    axes.set_xticks(range(len(found)), [label for _, _, label in found], fontsize=7)
    axes.set_ylabel("us of processor time a block")
    axes.set_title("Empty blocks, two processes")
    axes.legend(fontsize=8)


def round_trips(axes, series):
    for side, apart in enumerate(("processes", "threads")):
        found = [series[f"{apart}_round_trip_{name}"] for name, _ in ROUND_TRIPS]
        places = [place + 0.4 * side - 0.2 for place in range(len(found))]
        axes.bar(places, [one["median"] for one in found], yerr=figures.spread(found), width=0.4,
                 capsize=2, color=f"C{side}", label=f"two {apart}")
    axes.set_yscale("log")
    axes.set_xticks(range(len(ROUND_TRIPS)), [label for _, label in ROUND_TRIPS], fontsize=7)
    axes.set_ylabel("us")
    axes.set_title("A block and its answer")
    axes.legend(fontsize=8)


def draw(found):
    series = found["series"]
    figure, (left, middle, right) = figures.subplots(1, 3, (16, 4.8))
    rates(left, series, found["parameters"]["block_kib"])
    processor_times(middle, series,
                    [(f"processes_in_turns_{name}", label) for name, label in IN_TURNS] +
                    [(f"processes_0kib_{name}", label) for name, label in CHANNELS])
    round_trips(right, series)
    figure.suptitle(f"{found['machine']['processor']}, {found['machine']['cores']} cores, "
                    f"{found['parameters']['rounds']} rounds, {found['date'][:10]}", fontsize=9)
    return figure


if __name__ == "__main__":
    figures.main(__doc__, draw)
