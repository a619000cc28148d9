"""The report of a benchmark: tables in Markdown."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hvpnet.bench.accuracy import Accuracy
from hvpnet.bench.figures import draw_figures
from hvpnet.bench.run import Measurement, Results, headline
from hvpnet.bench.subjects import STAGES
from hvpnet.bench.workload import ALL_NEW, PICTURE_SIZE, PICTURES

_NAME = {"": "{0.variant.name}"}


def write_report(results: Results, out: Path) -> None:
    """Write report.md and its figures into a folder."""
    figures = "\n".join(f"![{name}]({name}.svg)" for name in draw_figures(results, out))
    (out / "report.md").write_text("\n\n".join([*_sections(results), figures]) + "\n", "utf-8")


def table(columns: Mapping[str, str], rows: Iterable[Any]) -> str:
    """A Markdown table; each column has a heading and the format of its cells, `{0}` being the row."""
    lines = [columns, ["---"] * len(columns), *([cell.format(row) for cell in columns.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def accuracy_table(found: Sequence[Accuracy]) -> str:
    """F1 and differing decisions; the margin is how much better eager FP32 scores its own decision."""
    columns = _NAME | {"F1": "{0.scores.f1:.2%}", "to eager fp32": "{0.change:+.2%}", "decisions": "{0.decisions}"}
    columns |= {"that differ": "{0.differing}", "equal": "{0.agreement:.3%}", "largest margin": "{0.margin:.3g}"}
    return table(columns, found)


def _sections(results: Results) -> Iterator[str]:
    measurements, rows = results["measurements"], headline(results)
    first = rows[0]
    new = sorted((each for each in measurements if each.case.pictures == ALL_NEW), key=lambda each: each.case)
    seen = {each.variant for each in measurements if each.case.pictures != ALL_NEW}
    yield _heading(results["machine"], results["model"])
    times = {name: f"{{0.total.{name}:.1f}}" for name in ("minimum", "p50", "p95", "p99")}
    ratios = {
        "x eager fp32": "{0.speedup}",
        "both graphs, p50": "{0.graphs.p50:.1f}",
        "graphs, x": "{0.graphs_speedup}",
    }
    yield f"## One request: {first.case.name}, {first.total.count} rounds"
    yield table(_NAME | times | ratios, rows)
    yield "## Its stages, medians"
    yield "prepare: tokenise, resize pictures; normalise: scale pixels, look prefixes up; decode: Viterbi, entities."
    yield table(_NAME | {stage: f"{{0.stages[{stage}]:.2f}}" for stage in STAGES}, rows)
    if seen:
        one = [replace(first.case, pictures=kind) for kind in PICTURES]
        own = [each for each in measurements if each.variant in seen and each.case in one]
        yield "## Pictures seen before"
        yield "p50 of the whole answer, its share of the variant's time with all pictures new, and p50 of the graphs."
        yield _by_case("{0.pictures}", "{0.total.p50:.1f} ({0.share.median:.0%}); {0.graphs.p50:.1f}", own)
    yield "## Batch and length"
    yield "p50 of the whole batch, all pictures new, and the ratio to eager fp32."
    yield _by_case("{0.batch} x {0.length}", "{0.total.p50:.0f} ({0.speedup.median:.2f}x)", new)
    yield "## Start and memory"
    yield "The fastest of the fresh processes, files in the system's cache; peak of resident memory."
    yield _starts(results)
    if results["accuracy"]:
        yield "## Accuracy on {tweets} tweets of {name}, {split}".format(**results["data"])
        yield "Decisions are of tags or relations. The margin is how much better eager FP32 scores its own."
        yield accuracy_table(results["accuracy"])
    if results["passed_over"]:
        yield "## Not run here"
        yield "\n".join(f"- {name}: {reason}" for name, reason in results["passed_over"].items())


def _heading(machine: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    bert, cpu = model["architecture"]["bert"], machine["cpu"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    settings = ", ".join(f"{name}={value}" for name, value in machine["settings"].items()) or "none"
    return f"""\
# {model["task"]}, {model["variant"]}, BERT of {bert["num_hidden_layers"]} layers of {bert["hidden_size"]}

{machine["date"]}, {machine["device"]}, {cpu["cores"]} CPU cores ({", ".join(cpu["flags"])}), {machine["system"]}.
Python {machine["python"]}, {versions}, commit {machine["commit"]}. Settings of threads: {settings}; PyTorch took
{machine["pytorch_threads"]} threads. Load average before: {machine["load_average"]}.

Every variant is a process of its own, and all take turns, answer by answer, after one round to warm up. Pictures are
JPEGs of {PICTURE_SIZE[0]} x {PICTURE_SIZE[1]}, words are whole pieces. Times are milliseconds from picture bytes and
words to entities or relations; PyTorch goes the published way (torchvision's transforms, every picture computed,
pytorch-crf). A ratio is eager FP32 over the variant, the median over the rounds with its 95 % interval (bootstrap):
above 1 is faster."""


def _by_case(heading: str, cell: str, measurements: Sequence[Measurement]) -> str:
    """A row for each variant and a column for each case, in order of appearance; a dash where there is none."""
    cases = list(dict.fromkeys(each.case for each in measurements))
    found = {(each.variant, each.case): cell.format(each) for each in measurements}
    columns = {heading.format(case): f"{{0[{index}]}}" for index, case in enumerate(cases, 1)}
    variants = dict.fromkeys(each.variant for each in measurements)
    return table(
        {"": "{0[0].name}"} | columns, [[each, *(found.get((each, case), "-") for case in cases)] for each in variants]
    )


def _starts(results: Results) -> str:
    columns = {"": "{0[name]}", "import, s": "{0[imports]:.2f}", "load, s": "{0[load]:.2f}"}
    columns |= {"first answer, s": "{0[first_answer]:.2f}", "import and load, x eager fp32": "{0[speedup]}"}
    columns |= {"memory after it, MiB": "{0[before]}", "after all batches, MiB": "{0[after]}"}
    rows = []
    for name, starts in results["starts"].items():
        fastest = min(starts, key=lambda start: start["imports"] + start["load"])
        peaks = {"before": fastest["peak_bytes"], "after": results["peak_bytes"][name]}
        memory = {when: "-" if peak is None else round(peak / 2**20) for when, peak in peaks.items()}
        rows.append({"name": name, "speedup": results["start_speedups"][name]} | fastest | memory)
    return table(columns, rows)
