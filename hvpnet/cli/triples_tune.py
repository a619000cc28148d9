"""Choose the threshold of triples: the one with the best F1 on posts whose triples are known. No file is changed."""

from dataclasses import asdict, dataclass
from pathlib import Path

from hvpnet.cli.options import PipelineOptions, argument, note_missing_objects, option, progress, show
from hvpnet.cli.pair import load_pair, read_scorable
from hvpnet.data.examples import SplitName
from hvpnet.evaluation.threshold import best
from hvpnet.evaluation.triple_threshold import try_triple_thresholds
from hvpnet_runtime.triples import TriplePipeline


@dataclass(frozen=True, kw_only=True)
class Options(PipelineOptions):
    """What `hvpnet triples tune` was asked to do."""

    entities: Path = argument("bundle for entities")
    relations: Path = argument("bundle for relations")
    data: Path = option("folder with SPLIT.posts.jsonl, as post-graphs has", required=True)
    split: SplitName = option("of the data (default dev)", default="dev")
    any_types: bool = option("allow relations whose names carry other types than their entities have")


def run(options: Options) -> int:
    """Find, score, choose, show."""
    with load_pair(options, options.entities, options.relations) as pair:
        posts = read_scorable(options.data, options.split, pair, pictures=True)
        pipeline = TriplePipeline(*pair, any_types=options.any_types)
        progress(f"finding triples in {len(posts)} posts")
        candidates = try_triple_thresholds(pipeline, posts)
        note_missing_objects(pipeline.without_objects)
    shown = {"threshold": best(candidates).threshold, "split": options.split, "posts": len(posts)}
    show({**shown, "candidates": [asdict(each) for each in candidates]}, as_json=options.json)
    return 0
