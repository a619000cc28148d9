"""Say what a data set holds, count its tweets, pictures and crops, and name what is missing. Needs no PyTorch.

Layouts are those of Twitter-2015/2017, MNRE and picture-tweets; a file of JSON lines, or a folder of them, is checked,
too. The exit code is 1 where anything is missing.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from hvpnet.cli.options import PictureOptions, ShownOptions, argument, option, show
from hvpnet.data.check import PartReport, check_data
from hvpnet.data.examples import SplitName


@dataclass(frozen=True, kw_only=True)
class Options(PictureOptions, ShownOptions):
    """What `hvpnet data check` was asked to do."""

    data: Path = argument("folder of a data set, or a file of JSON lines")
    split: SplitName | None = option("check this one alone (default: all three)")


def run(options: Options) -> int:
    """Count and show; exit code 1 if something is missing."""
    splits = (options.split,) if options.split else get_args(SplitName)
    reports = check_data(options.data, options.on_bad_image, splits)
    if options.json:
        show({"data": str(options.data), "parts": {name: asdict(each) for name, each in reports.items()}}, as_json=True)
    else:
        _print(reports)
    return 1 if any(report.missing for report in reports.values()) else 0


def _print(reports: dict[str, PartReport]) -> None:
    """A line for every part, and one for everything that is missing."""
    width = max(map(len, reports))
    for name, report in reports.items():
        replaced = f" ({report.replaced} more replaced by inf.png)" if report.replaced else ""
        print(f"{name:<{width}}  {report.tweets} tweets, {report.pictures} pictures{replaced}, {report.crops} crops")
    for name, report in reports.items():
        for fault in report.missing:
            print(f"missing in {name}: {fault}")
    if not any(report.missing for report in reports.values()):
        print("nothing is missing")
