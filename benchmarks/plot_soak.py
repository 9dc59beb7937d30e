"""Draws what tools/bench soak measured.

Usage: plot_soak.py NUMBERS.json PICTURE.png
"""

from support import figure as figures


def draw(found):
    series = found["series"]
    saves = found["parameters"]["saves"]
    figure, (memory, counts) = figures.subplots(2, 1, (9, 6), sharex=True)
    for axes, names in ((memory, ("trainer_memory", "helper_memory")),
                        (counts, ("trainer_descriptors", "trainer_threads", "trainer_children",
                                  "helper_descriptors", "helper_threads"))):
        for name in names:
            samples = series[name]["samples"]
            across = [saves * (i + 1) / len(samples) for i in range(len(samples))]
            axes.plot(across, samples, label=series[name]["label"])
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    memory.set_ylabel("MiB of their own")
    counts.set_ylabel("count")
    counts.set_xlabel("saves")
    figure.suptitle(
        f"{saves} saves, checkpoint process killed "
        f"{found['parameters']['kills_of_the_checkpoint_process']} times; {found['date'][:10]}",
        fontsize=9)
    return figure


if __name__ == "__main__":
    figures.main(__doc__, draw)
