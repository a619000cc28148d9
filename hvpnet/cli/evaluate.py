"""Score a bundle on a data set: entity F1 by seqeval, or relation micro-F1 without the none class."""

from dataclasses import asdict, dataclass
from pathlib import Path

from hvpnet.cli.options import PipelineOptions, argument, note_missing_objects, option, progress, show
from hvpnet.data import find_split, read_split
from hvpnet.data.examples import SplitName
from hvpnet.evaluation.metrics import require_scorer
from hvpnet.evaluation.scoring import score_pipeline
from hvpnet_runtime.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class Options(PipelineOptions):
    """What `hvpnet evaluate` was asked to do."""

    bundle: Path = argument()
    data: Path = option("folder of Twitter-2015/2017, MNRE or picture-tweets", required=True)
    split: SplitName = option("of the data (default test)", default="test")
    without_pictures: bool = option("withhold every picture: what do they add?")


def run(options: Options) -> int:
    """Score and show."""
    files = find_split(options.data, options.split)
    require_scorer(files.task)
    with Pipeline.load(
        options.bundle,
        options.backend,
        precision=options.precision,
        device=options.device,
        jpeg=options.jpeg,
        objects=options.objects,
    ) as pipeline:
        bundle = pipeline.bundle
        pictures = None if options.without_pictures else bundle.pictures
        split = read_split(files, options.on_bad_image, labels=bundle.labels, pictures=pictures)
        progress(f"scoring {split.summary} on {pipeline.backend.name}, {pipeline.backend.precision}")
        scores = score_pipeline(pipeline, split, without_pictures=options.without_pictures)
        note_missing_objects(pipeline.without_objects)
    show({"split": options.split, **split.counts, **asdict(scores)}, as_json=options.json)
    return 0
