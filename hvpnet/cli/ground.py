"""Write a data set with the objects that a bundle's grounder finds in its pictures, to train on what will be served.

A run that was stopped goes on where it was: give the same command again. The verbs `hvpnet ground add` and
`hvpnet ground tune` have a help of their own.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from hvpnet.cli.options import (
    PictureOptions,
    ShownOptions,
    argument,
    backend_option,
    device_option,
    option,
    precision_option,
    searched,
    show,
)
from hvpnet.data.grounded import ground_data_set
from hvpnet_runtime.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class Options(PictureOptions, ShownOptions):
    """What `hvpnet ground` was asked to do."""

    bundle: Path = argument("has the grounder")
    data: Path = argument("folder of Twitter-2015/2017, MNRE or picture-tweets, with crops or without")
    out: Path = option("the new data set's folder; must not exist", required=True)
    backend: str = backend_option(default="auto")
    precision: str | None = precision_option()
    device: int | None = device_option()


def run(options: Options) -> int:
    """Find, cut, list."""
    with Pipeline.load(
        options.bundle,
        options.backend,
        on_bad_image=options.on_bad_image,
        precision=options.precision,
        device=options.device,
        objects="found",
    ) as pipeline:
        reports = ground_data_set(pipeline, options.data, options.out, options.on_bad_image, searched())
    shared = sum(report.shared for report in reports.values())
    if shared:
        print(
            "hvpnet: tweets that share their picture with an earlier one and name other objects in it:"
            f" {shared}; lists are by picture, so they have the earlier tweet's",
            file=sys.stderr,
        )
    show(
        {"out": str(options.out), "splits": {name: asdict(each) for name, each in reports.items()}},
        as_json=options.json,
    )
    return 0
