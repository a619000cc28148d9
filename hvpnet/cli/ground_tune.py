"""Choose the threshold of a bundle's grounder: the one with the best F1 on the dev split of a data set."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from hvpnet.cli.options import (
    PictureOptions,
    ShownOptions,
    argument,
    backend_option,
    device_option,
    precision_option,
    progress,
    searched,
    show,
)
from hvpnet.data import find_split
from hvpnet.evaluation.metrics import require_scorer
from hvpnet.evaluation.threshold import best, try_thresholds, with_threshold
from hvpnet_runtime.bundle.rewriting import rewrite_manifest
from hvpnet_runtime.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class Options(PictureOptions, ShownOptions):
    """What `hvpnet ground tune` was asked to do."""

    bundle: Path = argument("has the grounder, and gets the threshold")
    data: Path = argument("folder of Twitter-2015/2017, MNRE or picture-tweets with a dev split")
    backend: str = backend_option(default="auto")
    precision: str | None = precision_option()
    device: int | None = device_option()


def run(options: Options) -> int:
    """Find, score, choose, rewrite."""
    files = find_split(options.data, "dev")
    require_scorer(files.task)
    with Pipeline.load(
        options.bundle,
        options.backend,
        on_bad_image=options.on_bad_image,
        precision=options.precision,
        device=options.device,
    ) as pipeline:
        manifest = pipeline.bundle.manifest
        before = pipeline.bundle.grounder.threshold  # an error, if it has none
        candidates = try_thresholds(pipeline, files, options.on_bad_image, progress, partial(searched(), "dev"))
    chosen = best(candidates)
    rewrite_manifest(options.bundle, with_threshold(manifest, chosen.threshold))
    show(
        {
            "bundle": str(options.bundle),
            "threshold": chosen.threshold,
            "before": before,
            "candidates": [asdict(each) for each in candidates],
        },
        as_json=options.json,
    )
    return 0
