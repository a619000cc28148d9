"""The report of a benchmark: tables in Markdown, and figures of one tweet's stages, of batches, and of accuracy."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from hvpnet.bench.accuracy import Accuracy
from hvpnet.bench.candidates import Candidate
from hvpnet.bench.measure import Measurement, Results
from hvpnet.bench.run import headline
from hvpnet.bench.stopwatch import STAGES
from hvpnet.bench.workload import ALL_NEW, FOUND, PICTURE_SIZE, PICTURES, Case

_COLOURS = ("#94a3b8", "#cbd5e1", "#0f766e", "#1d4ed8", "#c2410c")
_LATENCY = {"": "{0.candidate.name}"} | {name: f"{{0.total.{name}:.1f}}" for name in ("minimum", "p50", "p95", "p99")}
_LATENCY |= {"x eager fp32": "{0.speedup}", "both graphs, p50": "{0.graphs.p50:.1f}", "graphs, x": "{0.graphs_speedup}"}
_GIVEN = [stage for stage in STAGES if stage != "ground"]  # where objects are given
_STAGES = {"": "{0.candidate.name}"} | {stage: f"{{0.stages[{stage}]:.2f}}" for stage in _GIVEN}
_FOUND = {"": "{0.candidate.name}", "ground": "{0.stages[ground]:.2f}", "whole answer": "{0.total.p50:.1f}"}
_FOUND |= {"x its time with all pictures new": "{0.share}"}
_SCORES = {"": "{0.candidate.name}", "F1": "{0.scores.f1:.2%}", "to eager fp32": "{0.change:+.2%}"}
_SCORES |= {"equal": "{0.agreement:.3%}", "differ": "{0.differing} of {0.decisions}", "margin": "{0.margin:.3g}"}
_STARTS = {"": "{0[name]}", "import, s": "{0[imports]:.2f}", "load, s": "{0[load]:.2f}"}
_STARTS |= {"first answer, s": "{0[first_answer]:.2f}", "import and load, x eager fp32": "{0[speedup]}"}
_STARTS |= {"memory after it, MiB": "{0[before]}", "after all batches, MiB": "{0[after]}"}


def write_report(results: Results, out: Path) -> None:
    """Write results.json (latencies in milliseconds, starts in seconds), report.md and, of finished results, figures.

    An interrupt leaves the files as they were, or as they are to be.
    """
    drawn = draw_figures(results, out) if results["finished"] else []
    figures = ["\n".join(f"![{name}]({name}.svg)" for name in drawn)] if drawn else []
    _write(out / "results.json", json.dumps(_as_json(results), default=vars, indent=1))
    _write(out / "report.md", "\n\n".join([*_sections(results), *figures]))


def _as_json(results: Results) -> dict[str, Any]:
    """What results.json holds: what is by the name of a candidate or a case becomes a list of candidates or cases."""
    by_name = {name: results[name] for name in ("starts", "start_speedups", "peak_bytes", "passed_over")}
    names = dict.fromkeys(name for each in by_name.values() for name in each)
    candidates = [
        {
            "candidate": Candidate(*name.rsplit(" ", 1)),
            "passed_over": results["passed_over"].get(name),
            "starts": results["starts"].get(name, []),
            "start_speedup": results["start_speedups"].get(name),
            "peak_bytes": results["peak_bytes"].get(name),
        }
        for name in names
    ]
    left_out = [{"what": what, "candidates": each} for what, each in results["left_out"].items()]
    rest = {name: value for name, value in results.items() if name not in by_name}
    return {"schema": 6, **rest, "candidates": candidates, "left_out": left_out}


def _write(path: Path, content: str) -> None:
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(f"{content}\n", "utf-8")
    unfinished.replace(path)


def table(columns: Mapping[str, str], rows: Iterable[Any]) -> str:
    """A Markdown table; each column has a heading and the format of its cells, `{0}` being the row."""
    lines = [columns, ["---"] * len(columns), *([cell.format(row) for cell in columns.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def accuracy_table(found: Sequence[Accuracy]) -> str:
    """A Markdown table of F1 and of the decisions that differ from eager FP32's."""
    note = (
        "Decisions are tags of tokens, or relations. The margin is how much better eager FP32 scores its own, at most."
    )
    return f"{note}\n\n{table(_SCORES, found)}"


def _sections(results: Results) -> Iterator[str]:
    yield _heading(results["machine"], results["model"], results["seconds"])
    if not results["finished"]:
        yield "**Not finished**: this is what was measured before it was stopped, if it is not at work still."
    if results["measurements"]:
        yield from _timings(results)
    if results["starts"]:
        yield "## Start and memory"
        yield "The fastest of the fresh processes, files in the system's cache; peak of resident memory."
        if "fresh starts" in results["left_out"]:
            yield "There was no time for starts beside those of the timed, whose files may not have been in the cache."
        yield table(_STARTS, _starts(results))
    if results["accuracy"]:
        yield "## Accuracy on {tweets} tweets of {name}, {split}".format(**results["data"])
        yield accuracy_table(results["accuracy"])
    if results["left_out"]:
        yield "## Left out for want of time"
        yield "\n".join(f"- {case}: {', '.join(names)}" for case, names in results["left_out"].items())
    if results["passed_over"]:
        yield "## Not run here"
        reason_of = results["passed_over"].__getitem__
        by_reason = groupby(sorted(results["passed_over"], key=reason_of), reason_of)
        yield "\n".join(f"- {', '.join(names)}: {reason}" for reason, names in by_reason)


def _timings(results: Results) -> Iterator[str]:
    measurements, rows = results["measurements"], headline(results)
    first = rows[0].case
    yield f"## One request: {first.name}, {rows[0].total.count} rounds\n\n{table(_LATENCY, rows)}"
    yield "## Its stages, medians"
    yield "prepare: tokenise, resize; normalise: scale pixels, or look prefixes up; decode: Viterbi, entities."
    yield table(_STAGES, rows)
    if found := [each for each in measurements if each.case.pictures == FOUND]:
        yield "## Objects found in a new picture"
        yield "ground: the grounder's network on one picture, median. The whole answer is its p50, with its ratio."
        yield table(_FOUND, found)
    if seen := {each.candidate for each in measurements if each.case.pictures not in (ALL_NEW, FOUND)}:
        yield "## Pictures seen before"
        yield "p50 of the whole answer, its share of the candidate's time with all pictures new, and p50 of the graphs."
        cases = {Case(first.batch, first.length, pictures) for pictures in PICTURES if pictures != FOUND}
        one = [each for each in measurements if each.candidate in seen and each.case in cases]
        yield _by_case("{0.pictures}", "{0.total.p50:.1f} ({0.share.median:.0%}); {0.graphs.p50:.1f}", one)
    yield "## Batch and length"
    yield "p50 of the whole batch, all pictures new, and the ratio to eager fp32."
    new = sorted((each for each in measurements if each.case.pictures == ALL_NEW), key=lambda each: each.case)
    yield _by_case("{0.batch} x {0.length}", "{0.total.p50:.0f} ({0.speedup.median:.2f}x)", new)


def _heading(machine: Mapping[str, Any], model: Mapping[str, Any], seconds: float) -> str:
    bert, cpu = model["architecture"]["bert"], machine["cpu"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    settings = ", ".join(f"{name}={value}" for name, value in machine["settings"].items()) or "none"
    return f"""\
# {model["task"]}, {model["variant"]}, BERT of {bert["num_hidden_layers"]} layers of {bert["hidden_size"]}

{machine["date"]}, {machine["device"]}, {cpu["cores"]} CPU cores ({", ".join(cpu["flags"])}), {machine["system"]}.
Python {machine["python"]}, {versions}, commit {machine["commit"]}. Settings of threads: {settings}; PyTorch took
{machine["pytorch_threads"]} threads. Load average before: {machine["load_average"]}.

Every candidate is a process of its own, and all take turns, answer by answer, after one round to warm up; all
cases and starts had {seconds:g} seconds. Pictures are JPEGs of {" x ".join(map(str, PICTURE_SIZE))}, words are whole
pieces. Times are milliseconds from picture bytes and
words to entities or relations; PyTorch goes the published way (torchvision's transforms, every picture computed,
pytorch-crf). A ratio is eager FP32 over the candidate, the median over the rounds with its 95 % interval (bootstrap):
above 1 is faster."""


def _by_case(heading: str, cell: str, measurements: Sequence[Measurement]) -> str:
    """A row for each candidate and a column for each case, in order of appearance; a dash where there is none."""
    cases = dict.fromkeys(each.case for each in measurements)
    found = {(each.candidate, each.case): cell.format(each) for each in measurements}
    columns = {"": "{0[0].name}"} | {heading.format(case): f"{{0[{row}]}}" for row, case in enumerate(cases, 1)}
    rows = dict.fromkeys(each.candidate for each in measurements)
    return table(columns, ([candidate, *(found.get((candidate, case), "-") for case in cases)] for candidate in rows))


def _starts(results: Results) -> Iterator[dict[str, Any]]:
    for name, starts in results["starts"].items():
        fastest = min(starts, key=lambda start: start["imports"] + start["load"])
        peaks = {"before": fastest["peak_bytes"], "after": results["peak_bytes"].get(name)}
        memory = {when: "-" if peak is None else round(peak / 2**20) for when, peak in peaks.items()}
        yield {"name": name, "speedup": results["start_speedups"][name]} | fastest | memory


def draw_figures(results: Results, out: Path) -> list[str]:
    """Write latency.svg, batch.svg and, if tweets were scored, accuracy.svg into a folder; returns their names."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display
    from matplotlib import pyplot as plt

    rows, machine = headline(results), results["machine"]
    names, first, size = [each.candidate.name for each in rows], rows[0].case, (8, 1.6 + 0.45 * len(rows))
    figures = {name: plt.subplots(figsize=size, layout="constrained") for name in ("latency", "batch", "accuracy")}
    bars, lines, dots = (axes for _, axes in figures.values())
    left = np.zeros(len(rows))  # ms
    for stage, colour in zip(_GIVEN, _COLOURS, strict=True):
        widths = [each.stages[stage] for each in rows]
        container = bars.barh(names, widths, left=left, label=stage, color=colour)
        left += widths
    bars.bar_label(container, [f" {each.speedup.median:.2f}x" for each in rows], fontsize=8)
    bars.invert_yaxis()
    bars.set(xlabel=f"ms, {first.name}: medians of the stages, ratio to eager fp32", xmargin=0.1)
    new = [each for each in results["measurements"] if each.case == replace(first, batch=each.case.batch)]
    for name in names:
        points = [(each.case.batch, each.total.p50 / each.case.batch) for each in new if each.candidate.name == name]
        lines.plot(*zip(*points, strict=True), marker="o", label=name)
    lines.set(xscale="log", ylim=(0, None), xlabel="tweets in a batch, all pictures new", ylabel="ms per tweet, p50")
    for found in results["accuracy"]:
        median = next(each.total.p50 for each in rows if each.candidate == found.candidate)
        dots.plot(median, 100 * found.scores.f1, marker="o", linestyle="", label=found.candidate.name)
    dots.set(xlabel=f"ms, {first.name}, p50", ylabel="F1, %")
    if not results["accuracy"]:
        del figures["accuracy"]
    for name, (figure, axes) in figures.items():
        axes.set_title(f"{machine['device']}, {machine['cpu']['cores']} CPU cores, {machine['date'][:10]}", fontsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.savefig(out / f"{name}.svg")
    plt.close("all")
    return list(figures)
