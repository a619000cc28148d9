"""Bundles of entities and of relations, loaded together for verbs that score triples."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hvpnet.cli.options import PipelineOptions
from hvpnet.data.examples import SplitName
from hvpnet.data.posts import PostExample, posts_file, read_posts
from hvpnet.errors import DataError
from hvpnet_runtime.pipeline import Pipeline


@contextmanager
def load_pair(options: PipelineOptions, entities: Path, relations: Path) -> Iterator[tuple[Pipeline, Pipeline]]:
    """Pipelines of two bundles, closed at the end of the block, which read all of a long text.

    Raises:
        HvpnetError: as `Pipeline.load`.
    """
    with ExitStack() as loaded:
        first, second = (
            loaded.enter_context(
                Pipeline.load(
                    bundle,
                    options.backend,
                    window=True,
                    on_bad_image=options.on_bad_image,
                    precision=options.precision,
                    device=options.device,
                    jpeg=options.jpeg,
                    objects=options.objects,
                )
            )
            for bundle in (entities, relations)
        )
        yield first, second


def read_scorable(
    data: Path, split: SplitName, pair: tuple[Pipeline, Pipeline], *, pictures: bool
) -> list[PostExample]:
    """The posts of a split, with their pictures or, where these are withheld, without.

    Raises:
        DataError: they cannot be read, or have no picture at all though one of the bundles reads them.
    """
    path = posts_file(data, split)
    posts = read_posts(path, pictures=pictures)
    reads = pictures and any(pipeline.bundle.sizes.pictures for pipeline in pair)
    if reads and all(post.tweet.image is None for post in posts):
        raise DataError(f"{path}: its posts have no pictures and the bundles read them: name them under the key image")
    return posts
