"""The report of a benchmark: tables in Markdown, figures, and results.json."""

import json
from collections.abc import Sequence
from pathlib import Path

from hvpnet.bench.figures import draw_figures
from hvpnet.bench.measuring import Measurement
from hvpnet.bench.results import Results, Scored
from hvpnet.bench.statistics import Ratio
from hvpnet.bench.stopwatch import STAGES
from hvpnet.bench.variants import Variant
from hvpnet.bench.workload import PICTURE_SIZE

_MEBIBYTE = 2**20


def write_report(results: Results, out: Path) -> None:
    """Write results.json, report.md and the figures into a folder, which is made if need be."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results.to_dict(), indent=1) + "\n", "utf-8")
    figures = draw_figures(results, out)
    (out / "report.md").write_text(as_markdown(results, figures), "utf-8")


def as_markdown(results: Results, figures: Sequence[str] = ()) -> str:
    """The report.

    Args:
        results: what to show.
        figures: file names beside the report.
    """
    sections = [
        _heading(results),
        _headline(results),
        _stages(results),
        _pictures(results),
        _sweep(results),
        _starts(results),
        *([_accuracy(results.scored)] if results.scored else []),
        _passed_over(results),
        "\n".join(f"![{name.partition('.')[0]}]({name})" for name in figures),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _heading(results: Results) -> str:
    machine, model = results.machine, results.model
    cpu, bert = machine["cpu"], model["architecture"]["bert"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    settings = ", ".join(f"{name}={value}" for name, value in machine["settings"].items()) or "none"
    commit = f" at commit {machine['commit']}" if machine["commit"] else ""
    width, height = PICTURE_SIZE
    title = f"{model['task']}, {model['variant']}, BERT of {bert['num_hidden_layers']} layers of {bert['hidden_size']}"
    return f"""# {title}

{machine["date"]}, {machine["device"]}, {cpu["cores"]} CPU cores ({", ".join(cpu["flags"])}), {machine["system"]}.
Python {machine["python"]}, {versions}{commit}. Settings of threads: {settings}; PyTorch took
{machine["pytorch_threads"]} threads. Load average before: {machine["load_average"]}.

Every variant is a process of its own, and all take turns, answer by answer, after one round to warm up. Pictures are
JPEGs of {width} x {height}, words are whole pieces. Times are milliseconds from picture bytes and words to entities or
relations; PyTorch goes the published way (torchvision's transforms, every picture computed, pytorch-crf). A ratio is
eager FP32 over the variant, the median over the rounds with its 95 % interval (bootstrap): above 1 is faster."""


def _headline(results: Results) -> str:
    rows = [
        [
            each.variant.name,
            *(f"{time:.1f}" for time in (each.total.minimum, each.total.p50, each.total.p95, each.total.p99)),
            ratio(each.speedup),
            f"{each.graphs.p50:.1f}",
            ratio(each.graphs_speedup),
        ]
        for each in results.headline
    ]
    first = results.headline[0]
    header = ["", "minimum", "p50", "p95", "p99", "x eager fp32", "both graphs, p50", "x eager fp32"]
    return f"## One request: {first.case.name}, {first.total.count} rounds\n\n{table(header, rows)}"


def _stages(results: Results) -> str:
    rows = [[each.variant.name, *(f"{each.stages[stage]:.2f}" for stage in STAGES)] for each in results.headline]
    return f"""## Its stages, medians

prepare: tokenise, decode and resize pictures; normalise: scale pixels, look prefixes up; decode: Viterbi, entities.

{table(["", *STAGES], rows)}"""


def _pictures(results: Results) -> str:
    cases = results.of("pictures")
    if len(cases) == 1:
        return ""
    by_variant: dict[Variant, list[Measurement]] = {}
    for measurements in cases.values():
        for each in measurements:
            by_variant.setdefault(each.variant, []).append(each)
    rows = [
        [variant.name, *(f"{each.total.p50:.1f} ({percent(each.share)}); {each.graphs.p50:.1f}" for each in own)]
        for variant, own in by_variant.items()
        if len(own) == len(cases)
    ]
    return f"""## Pictures seen before

p50 of the whole answer, its share of the same variant's time with all pictures new, and p50 of the graphs alone.

{table(["", *(case.pictures for case in cases)], rows)}"""


def _sweep(results: Results) -> str:
    cases = {results.headline[0].case: results.headline} | results.of("length", "batch")
    cases = dict(sorted(cases.items(), key=lambda item: (item[0].batch, item[0].length)))
    rows = [
        [
            each.variant.name,
            *(
                next(
                    (
                        f"{own.total.p50:.0f} ({own.speedup.median:.2f}x)"
                        for own in found
                        if own.variant == each.variant
                    ),
                    "-",
                )
                for found in cases.values()
            ),
        ]
        for each in results.headline
    ]
    return f"""## Batch and length

p50 of the whole batch, all pictures new, and the ratio to eager fp32.

{table(["", *(f"{case.batch} x {case.length}" for case in cases)], rows)}"""


def _starts(results: Results) -> str:
    rows = []
    for variant, starts in results.starts.items():
        fastest = min(starts, key=lambda start: start.ready)
        peak = results.peak_bytes.get(variant)
        rows.append(
            [
                variant.name,
                *(f"{seconds:.2f}" for seconds in (fastest.imports, fastest.load, fastest.first_answer)),
                ratio(results.start_speedup(variant)),
                mebibytes(fastest.peak_bytes),
                mebibytes(peak),
            ]
        )
    header = ["", "import, s", "load, s", "first answer, s", "import and load, x eager fp32"]
    header += ["memory after it, MiB", "after all batches, MiB"]
    return f"""## Start and memory

The fastest of {max(map(len, results.starts.values()))} fresh processes, files in the system's cache; peak of resident
memory.

{table(header, rows)}"""


def _accuracy(scored: Scored) -> str:
    rows = [
        [
            each.variant.name,
            f"{100 * each.scores.f1:.2f}",
            f"{100 * (each.scores.f1 - scored.variants[0].scores.f1):+.2f}",
            f"{100 * each.agreement:.3f} %",
            str(each.differing),
            f"{each.margins[0]:.3g}" if each.margins else "-",
        ]
        for each in scored.variants
    ]
    header = ["", "F1", "to eager fp32", "decisions equal", "that differ", "largest margin"]
    return f"""## Accuracy on {scored.tweets} tweets of {scored.data}, {scored.split}

Decisions are tags of tokens, or relations. The margin is how much better eager FP32 scores its own decision.

{table(header, rows)}"""


def _passed_over(results: Results) -> str:
    if not results.passed_over:
        return ""
    variants: dict[str, list[str]] = {}
    for name, reason in results.passed_over.items():
        variants.setdefault(reason, []).append(name)
    rows = [f"- {', '.join(names)}: {reason}" for reason, names in variants.items()]
    return "\n".join(["## Not run here", "", *rows])


def ratio(value: Ratio) -> str:
    """`1.62 (1.60 to 1.65)`."""
    return f"{value.median:.2f} ({value.low:.2f} to {value.high:.2f})"


def percent(value: Ratio) -> str:
    """`38 %`."""
    return f"{100 * value.median:.0f} %"


def mebibytes(count: int | None) -> str:
    """`512`, or a dash for None."""
    return "-" if count is None else f"{count / _MEBIBYTE:.0f}"
