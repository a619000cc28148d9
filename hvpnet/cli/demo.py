"""Generate picture-tweets, train on them, export, verify, predict, and write a small report: a few minutes on a CPU."""

from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from hvpnet.cli.options import ShownOptions, note, option, progress, show
from hvpnet_runtime.backends.onnxruntime import CPU, require_provider


@dataclass(frozen=True, kw_only=True)
class Options(ShownOptions):
    """What `hvpnet demo` was asked to do."""

    out: Path = option("folder of data, bundle and report (demo)", default=Path("demo"))


def run(options: Options) -> int:
    """Run it all and print the report."""
    for package in ("matplotlib", "seqeval"):  # an error before minutes of training
        import_module(package)
    require_provider(CPU, "cpu")  # which imports it without telemetry
    progress("loading PyTorch")
    from hvpnet.demo import run_demo
    from hvpnet.demo.report import as_markdown

    figures = run_demo(options.out, progress, report=note)
    report, bundle = options.out / "report.md", options.out / "bundle"
    if options.json:
        show({"report": str(report), "bundle": str(bundle), **asdict(figures)}, as_json=True)
    else:
        print(as_markdown(figures))
        print(f"The report: {report}; a bundle to play with: {bundle}")
    return 0
