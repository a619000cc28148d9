"""Three figures: latency of one tweet by variant and stage, of batches, and accuracy against latency."""

from pathlib import Path
from typing import Any

from hvpnet.bench.subjects import STAGES
from hvpnet.bench.workload import ALL_NEW

_COLOURS = ("#94a3b8", "#cbd5e1", "#0f766e", "#1d4ed8", "#c2410c")


def draw_figures(results: dict[str, Any], out: Path) -> list[str]:
    """Write latency.svg, batch.svg and, if tweets were scored, accuracy.svg into a folder; returns their names."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display
    from matplotlib import pyplot as plt

    machine, first = results["machine"], results["measurements"][0].case
    new = [
        each for each in results["measurements"] if each.case.pictures == ALL_NEW and each.case.length == first.length
    ]
    one = {each.variant.name: each for each in new if each.case.batch == 1}
    size = (8, 1.6 + 0.45 * len(one))
    (latency, bars), (batch, lines), (accuracy, dots) = (plt.subplots(figsize=size) for _ in range(3))
    left = [0.0] * len(one)
    for stage, colour in zip(STAGES, _COLOURS, strict=True):
        widths = [each.stages[stage] for each in one.values()]
        bars.barh(list(one), widths, left=left, label=stage, color=colour)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, each in enumerate(one.values()):
        bars.annotate(f" {each.speedup.median:.2f}x", (left[row], row), verticalalignment="center")
    bars.set(xlabel="ms, medians of the stages, and the ratio to eager fp32", title=first.name)
    bars.invert_yaxis()
    for name in one:
        own = [each for each in new if each.variant.name == name]
        lines.plot(
            [each.case.batch for each in own], [each.total.p50 / each.case.batch for each in own], "o-", label=name
        )
    lines.set(
        xscale="log", xlabel="tweets in a batch", ylabel="ms per tweet, p50", title=f"{first.length} tokens, all new"
    )
    for each in results["accuracy"]:
        dots.plot(one[each.variant.name].total.p50, 100 * each.scores.f1, "o", label=each.variant.name)
    dots.set(xlabel=f"ms, {first.name}, p50", ylabel="F1, %")
    names = {"latency": latency, "batch": batch} | ({"accuracy": accuracy} if results["accuracy"] else {})
    for name, figure in names.items():
        figure.axes[0].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.axes[0].spines[["top", "right"]].set_visible(False)
        figure.suptitle(f"{machine['device']}, {machine['cpu']['cores']} CPU cores, {machine['date'][:10]}", fontsize=7)
        figure.savefig(out / f"{name}.svg", bbox_inches="tight")
    plt.close("all")
    return list(names)
