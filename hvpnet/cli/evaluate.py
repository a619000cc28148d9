"""Score a bundle on a data set: entity F1 by seqeval, or relation micro-F1 without the none class.

With --triples, it scores whole triples, from posts on: on post-graphs, or on MNRE, where it is the recall of the marked
pairs.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hvpnet.cli.options import PipelineOptions, argument, note_missing_objects, option, progress, show
from hvpnet.cli.pair import load_pair, read_scorable
from hvpnet.data import find_split, posts_file, read_split
from hvpnet.data.examples import RelationExample, SplitName, count_files, in_words
from hvpnet.evaluation.metrics import require_scorer
from hvpnet.evaluation.scoring import check_split, score_pipeline
from hvpnet.evaluation.triples import TripleScores, score_pairs, score_triples
from hvpnet_runtime.errors import InputError
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.triples import TriplePipeline
from hvpnet_runtime.triples.pipeline import share


@dataclass(frozen=True, kw_only=True)
class Options(PipelineOptions):
    """What `hvpnet evaluate` was asked to do.

    Raises:
        InputError: there is an option of triples without --triples.
    """

    bundle: Path = argument()
    data: Path = option("folder of Twitter-2015/2017, MNRE, picture-tweets or post-graphs", required=True)
    split: SplitName = option("of the data (default test)", default="test")
    without_pictures: bool = option("withhold every picture: what do they add?")
    triples: Path | None = option("a bundle for relations, beside one for entities: score their triples", metavar="RE")
    threshold: float | None = option("drop triples with a smaller score, as hvpnet triples tune chose it", metavar="P")
    any_types: bool = option("allow relations whose names carry other types than their entities have")

    def __post_init__(self) -> None:
        if self.triples is None and (self.threshold is not None or self.any_types):
            raise InputError("--threshold and --any-types belong to --triples")
        if self.threshold is not None:
            share("--threshold", self.threshold)


def run(options: Options) -> int:
    """Score and show."""
    result = _score_bundle(options) if options.triples is None else _score_triples(options, options.triples)
    show({"split": options.split, **result}, as_json=options.json)
    return 0


def _score_bundle(options: Options) -> dict[str, Any]:
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
    return {**split.counts, **asdict(scores)}


def _score_triples(options: Options, relations: Path) -> dict[str, Any]:
    with load_pair(options, options.bundle, relations) as pair:
        ways = {"types_agree": _triples(options, pair, any_types=False)} if not options.any_types else {}
        ways["any_types"] = _triples(options, pair, any_types=True)
        of_posts = posts_file(options.data, options.split).exists()
        return (_score_posts if of_posts else _score_marked_pairs)(options, pair, ways)


def _triples(options: Options, pair: tuple[Pipeline, Pipeline], *, any_types: bool) -> TriplePipeline:
    threshold = 0.0 if options.threshold is None else options.threshold
    return TriplePipeline(*pair, threshold=threshold, any_types=any_types)


def _score_posts(options: Options, pair: tuple[Pipeline, Pipeline], ways: dict[str, TriplePipeline]) -> dict[str, Any]:
    """Scores end to end, and beside them those between gold entities, and those of any types."""
    posts = read_scorable(options.data, options.split, pair, pictures=not options.without_pictures)
    counts = count_files([post.tweet for post in posts])
    progress(f"scoring the triples of {in_words(counts)} on {pair[0].backend.name}, {pair[0].backend.precision}")
    scores: dict[str, TripleScores] = {}
    for name, pipeline in ways.items():
        scores[name] = score_triples(pipeline, posts)
        if len(scores) == 1:  # the same posts are read again and again
            note_missing_objects(pipeline.without_objects)
        scores[f"{name}_given_entities"] = score_triples(pipeline, posts, given=True)
    ways_table = {
        name: {"precision": each.precision, "recall": each.recall, "f1": each.f1} for name, each in scores.items()
    }
    return {**counts, **asdict(next(iter(scores.values()))), "ways": ways_table}


def _score_marked_pairs(
    options: Options, pair: tuple[Pipeline, Pipeline], ways: dict[str, TriplePipeline]
) -> dict[str, Any]:
    """Recall of the pairs that a data set for relations marks."""
    files = find_split(options.data, options.split)
    bundle = next((each.bundle for each in pair if each.bundle.sizes.pictures), pair[1].bundle)
    reads = bundle.sizes.pictures > 0 and not options.without_pictures
    split = read_split(files, options.on_bad_image, pictures=bundle.pictures if reads else None)
    check_split(split, "re", with_pictures=reads, cure="add their folder, or score with without_pictures=True")
    progress(f"scoring the marked pairs of {split.summary} on {pair[0].backend.name}, {pair[0].backend.precision}")
    examples = [example for example in split.examples if isinstance(example, RelationExample)]
    scores = {name: asdict(score_pairs(pipeline, examples)) for name, pipeline in ways.items()}
    note_missing_objects(next(iter(ways.values())).without_objects)
    return {**split.counts, **next(iter(scores.values())), "ways": scores}
