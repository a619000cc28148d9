"""The demo's report: two tables in Markdown, and a figure of tweets with their pictures and tags."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvpnet.bench.report import table
from hvpnet.bench.statistics import Summary
from hvpnet.demo.accuracy import Accuracy
from hvpnet_runtime import EntityResult, Tweet
from hvpnet_runtime.bundle import PictureSpec
from hvpnet_runtime.preprocessing.pictures import open_picture

_FOUND = "#facc15"  # boxes of found objects
_COLOURS = {"PER": "#c2410c", "LOC": "#15803d", "ORG": "#1d4ed8", "MISC": "#7e22ce"}


_WAYS = {
    "runtime": "runtime, with pictures",
    "eager": "eager PyTorch, with pictures",
    "pictures_withheld": "the same model, pictures withheld",
    "trained_without_pictures": "trained without pictures",
}
"""Ways of predicting, for people."""

_TIMED = {
    "eager": "eager PyTorch",
    "runtime_new_pictures": "runtime, new pictures",
    "runtime_seen_pictures": "runtime, pictures seen before",
}
"""Ways of running, for people."""


@dataclass(frozen=True)
class Figures:
    """What the demo measured.

    Attributes:
        tweets: held-out tweets.
        accuracy: by way of predicting, of `_WAYS`.
        differing_tweets: tweets that the runtime tags otherwise than eager PyTorch.
        fp16: how far the FP16 graphs are from eager PyTorch on these tweets, in words.
        latencies: by way of running, of `_TIMED`.
        backend: what the runtime ran on.
        threads: CPU threads of PyTorch.
    """

    tweets: int
    accuracy: Mapping[str, Accuracy]
    differing_tweets: int
    fp16: str
    latencies: Mapping[str, Summary]
    backend: str
    threads: int


def write_report(figures: Figures, examples: Sequence[tuple[Tweet, EntityResult]], out: Path) -> None:
    """Write report.md and, of the example tweets and what the runtime said of them, report.png."""
    (out / "report.md").write_text(as_markdown(figures), "utf-8")
    draw(examples, out / "report.png")


def as_markdown(figures: Figures) -> str:
    """The two tables."""
    accuracy = {"": "{0[0]}", "entity F1": "{0[1].f1:.1%}", "ambiguous names right": "{0[1].ambiguous:.1%}"}
    latency = {"": "{0[0]}", "minimum": "{0[1].minimum:.1f} ms", "median": "{0[1].p50:.1f} ms"}
    same = "tags every one of them as eager PyTorch does"
    if figures.differing_tweets:
        same = f"tags {figures.differing_tweets} of them otherwise than eager PyTorch"
    return f"""# picture-tweets

{figures.tweets} held-out tweets. The type of an ambiguous name is in the picture alone: without it, one
in four is right by chance. The runtime ({figures.backend}) {same}.

{table(accuracy, ((said, figures.accuracy[way]) for way, said in _WAYS.items()))}

The FP16 graphs on the same tweets: {figures.fp16}.

One tweet at a time, from files to tags, {figures.threads} CPU threads, interleaved:

{table(latency, ((said, figures.latencies[way]) for way, said in _TIMED.items()))}

![tweets with their pictures and tags](report.png)
"""


def draw(examples: Sequence[tuple[Tweet, EntityResult]], path: Path) -> None:
    """Draw tweets with their pictures, the objects found in those and the entities, two rows of them."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle

    columns = max(1, (len(examples) + 1) // 2)
    figure, axes = plt.subplots(2, columns, figsize=(4 * columns, 7.6), squeeze=False)
    for cell in axes.flat:
        cell.axis("off")
    for cell, (tweet, result) in zip(axes.flat, examples, strict=False):
        if tweet.image is not None:
            cell.imshow(open_picture(tweet.image, PictureSpec()), aspect="equal")
        for found in result.objects or ():
            left, top, right, bottom = found.box
            edges = (left - 0.5, top - 0.5)  # of the first pixel, whose middle is at 0
            cell.add_patch(Rectangle(edges, right - left, bottom - top, edgecolor=_FOUND, fill=False, linewidth=2))
            said = f" {found.query} {found.score:.2f}"
            cell.text(*edges, said, color=_FOUND, fontsize=9, fontweight="bold", verticalalignment="top")
        words = " ".join(word for word in tweet.words or () if word.isascii())  # fonts lack most emoji
        cell.set_title("\n".join(textwrap.wrap(words, 42)), fontsize=10, loc="left")
        for line, entity in enumerate(result.entities):
            cell.annotate(
                f"{entity.type}  {entity.text}  {entity.score:.2f}",
                xy=(0, 0),
                xycoords="axes fraction",
                xytext=(4, -8 - 22 * line),
                textcoords="offset points",
                color="white",
                fontsize=11,
                fontweight="bold",
                verticalalignment="top",
                bbox={"facecolor": _COLOURS.get(entity.type, "#404040"), "edgecolor": "none", "boxstyle": "round"},
            )
    figure.tight_layout(h_pad=3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
