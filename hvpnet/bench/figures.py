"""Four figures: latency by variant, its stages, latency against batch, accuracy against latency."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hvpnet.bench.results import Results
from hvpnet.bench.stopwatch import STAGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"prepare": "#94a3b8", "normalise": "#cbd5e1", "vision": "#0f766e", "text": "#1d4ed8", "decode": "#c2410c"}


def draw_figures(results: Results, out: Path) -> list[str]:
    """Write the figures that the results allow into a folder; returns their file names."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display
    from matplotlib import pyplot as plt

    drawings: dict[str, Callable[[Axes, Results], None]] = {
        "latency": _latency,
        "stages": _stages,
        "batch": _batch,
    }
    if results.scored:
        drawings["accuracy"] = _accuracy
    names = []
    for name, draw in drawings.items():
        figure, axes = plt.subplots(figsize=(8, 1.6 + 0.45 * len(results.headline)), layout="constrained")
        draw(axes, results)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(_conditions(results), loc="right", fontsize=7, color="#64748b")
        figure.savefig(out / f"{name}.svg")
        plt.close(figure)
        names.append(f"{name}.svg")
    return names


def _latency(axes: "Axes", results: Results) -> None:
    names = [each.variant.name for each in results.headline]
    medians = [each.total.p50 for each in results.headline]
    below = [each.total.p50 - each.total.minimum for each in results.headline]
    above = [each.total.p95 - each.total.p50 for each in results.headline]
    axes.barh(names, medians, color="#1d4ed8", xerr=[below, above], error_kw={"ecolor": "#0f172a", "capsize": 3})
    for row, each in enumerate(results.headline):
        axes.annotate(f" {each.speedup.median:.2f}x", (each.total.p95, row), verticalalignment="center", fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("ms from picture bytes to answer: p50, minimum to p95")
    axes.set_title(results.headline[0].case.name, loc="left")


def _stages(axes: "Axes", results: Results) -> None:
    names = [each.variant.name for each in results.headline]
    left = [0.0] * len(names)
    for stage in STAGES:
        widths = [each.stages[stage] for each in results.headline]
        axes.barh(names, widths, left=left, label=stage, color=_COLOURS[stage])
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("ms, median of each stage")
    axes.set_title(results.headline[0].case.name, loc="left")
    axes.legend(frameon=False, ncols=len(STAGES), loc="upper center", bbox_to_anchor=(0.5, -0.25))


def _batch(axes: "Axes", results: Results) -> None:
    length = results.headline[0].case.length
    found = [*results.headline, *(each for own in results.of("batch").values() for each in own)]
    for variant in dict.fromkeys(each.variant for each in results.headline):
        own = [each for each in found if each.variant == variant]
        batches = [each.case.batch for each in own]
        axes.plot(batches, [each.total.p50 / each.case.batch for each in own], marker="o", label=variant.name)
    axes.set_xscale("log", base=2)
    sizes = sorted({each.case.batch for each in found})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tweets in a batch")
    axes.set_ylabel("ms per tweet, p50")
    axes.set_title(f"{length} tokens, all pictures new", loc="left")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def _accuracy(axes: "Axes", results: Results) -> None:
    if results.scored is None:
        return
    latency = {each.variant: each.total.p50 for each in results.headline}
    for each in results.scored.variants:
        axes.plot(latency[each.variant], 100 * each.scores.f1, "o", label=each.variant.name)
    axes.set_xlim(left=0)
    axes.margins(y=0.3)
    axes.set_xlabel(f"ms, {results.headline[0].case.name}, p50")
    axes.set_ylabel("F1, %")
    axes.set_title(f"{results.scored.data}, {results.scored.split}", loc="left")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def _conditions(results: Results) -> str:
    return f"{results.machine['device']}, {results.machine['cpu']['cores']} CPU cores, {results.machine['date'][:10]}"
