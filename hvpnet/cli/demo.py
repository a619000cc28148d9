"""Generate picture-tweets, train on them, export, verify, predict, and write a small report: a few minutes on a CPU."""

from dataclasses import dataclass
from pathlib import Path

from hvpnet.cli.options import VerbOptions, option, progress


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """What `hvpnet demo` was asked to do."""

    out: Path = option("folder of data, bundle and report (demo)", default=Path("demo"))


def run(options: Options) -> int:
    """Run it all and print the report."""
    progress("loading PyTorch")
    from hvpnet.demo import run_demo
    from hvpnet.demo.report import as_markdown

    figures = run_demo(options.out, progress)
    print(as_markdown(figures))
    print(f"The report: {options.out / 'report.md'}; a bundle to play with: {options.out / 'bundle'}")
    return 0
