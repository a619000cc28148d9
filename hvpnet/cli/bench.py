"""Time a bundle against its checkpoint in PyTorch, on this machine, and score both; writes results, report, figures."""

import argparse
from pathlib import Path
from typing import get_args

from hvpnet.cli.options import add_json, progress, show
from hvpnet.data.examples import SplitName
from hvpnet.errors import ConfigError
from hvpnet_runtime.backends import BACKENDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True, help="what the bundle was exported from")
    parser.add_argument("--out", type=Path, required=True, help="a folder for results.json, report.md and figures")
    parser.add_argument(
        "--backend", action="append", choices=tuple(BACKENDS), help="time only this one; may be given again"
    )
    parser.add_argument("--data", type=Path, help="also score on Twitter-2015/2017, MNRE or picture-tweets")
    parser.add_argument("--split", default="test", choices=get_args(SplitName))
    parser.add_argument(
        "--seconds", type=float, default=30, help="for each group of cases, thrice for the first (default 30)"
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Measure, write, and show every variant's speed-up."""
    if not options.seconds >= 0:
        raise ConfigError(f"--seconds must be at least 0, not {options.seconds}")
    options.out.mkdir(parents=True, exist_ok=True)  # before minutes of timing
    progress("loading PyTorch")
    from hvpnet.bench.report import write_report
    from hvpnet.bench.run import headline, run_bench

    data = (options.data, options.split) if options.data else None
    backends = options.backend or tuple(BACKENDS)
    results = run_bench(options.bundle, options.checkpoint, options.out, backends, options.seconds, data, progress)
    write_report(results, options.out)
    speedups = {f"{each.variant.name}, times eager fp32": each.speedup.median for each in headline(results)}
    show({"report": str(options.out / "report.md")} | speedups, as_json=options.json)
    return 0
