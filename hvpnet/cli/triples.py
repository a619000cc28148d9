"""Extract triples from every post of a file: its entities, and the relations between them. Interrupted, it goes on."""

from dataclasses import dataclass
from pathlib import Path

from hvpnet.cli.bulk_options import BulkOptions, run_job
from hvpnet.cli.options import argument, option, select
from hvpnet_runtime.errors import InputError
from hvpnet_runtime.triples.graph import GraphFormat
from hvpnet_runtime.triples.pairs import MAX_PAIRS
from hvpnet_runtime.triples.pipeline import share


@dataclass(frozen=True, kw_only=True)
class Options(BulkOptions):
    """What `hvpnet triples` was asked to do.

    Raises:
        InputError: see `BulkOptions`; or the threshold is not from 0 to 1.
    """

    entities: Path = argument("bundle for entities", metavar="NER")
    relations: Path = argument("bundle for relations", metavar="RE")
    format: GraphFormat | None = option(
        "write one graph of all posts instead of an answer to each: OUTPUT is a folder of nodes.csv and edges.csv for"
        " neo4j, a file for ntriples"
    )
    threshold: float = option(
        "drop triples with a smaller score, from 0 to 1; see hvpnet triples tune (default 0)", default=0.0
    )
    max_pairs: int = option(f"pairs of one post that are asked about, at most (default {MAX_PAIRS})", default=MAX_PAIRS)
    any_types: bool = option(
        "also ask about relations whose names carry other types than the entities have, as /per/org/member_of of two"
        " persons"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        share("--threshold", self.threshold)
        if self.max_pairs < 1:
            raise InputError(f"--max-pairs must be at least 1, not {self.max_pairs}")


def run(options: Options) -> int:
    """Extract."""
    from hvpnet_runtime.bulk import TripleJob

    return run_job(select(TripleJob, options, bundle=options.entities, window=True), options)
