"""Generate picture-tweets, train on them, export, verify, predict, and write a small report: a few minutes on a CPU."""

import argparse
from pathlib import Path

from hvpnet.cli.options import progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of data, bundle and report (demo)")


def run(options: argparse.Namespace) -> int:
    """Run it all and print the report."""
    progress("loading PyTorch")
    from hvpnet.demo import run_demo
    from hvpnet.demo.report import as_markdown

    figures = run_demo(options.out, progress)
    print(as_markdown(figures))
    print(f"The report: {options.out / 'report.md'}; a bundle to play with: {options.out / 'bundle'}")
    return 0
