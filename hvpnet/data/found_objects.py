"""Objects that a bundle's grounder finds in the pictures of a data set."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeAlias

from hvpnet.data.examples import Example, Split
from hvpnet.data.published import SplitFiles, read_split
from hvpnet.errors import DataError
from hvpnet_runtime.errors import InputError, PictureError, TextError
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.pictures import SUBSTITUTE, OnBadImage
from hvpnet_runtime.types import FoundObject

Found: TypeAlias = tuple[FoundObject, ...]

_AT_ONCE = 32
"""Tweets that are prepared before the first of them is handed on."""

_ANY_WORD = ("a",)
"""Stands for words that give no piece, such as zero-width characters, which a pipeline refuses: they name nothing."""


def read_searchable(files: SplitFiles, pipeline: Pipeline, on_bad_image: OnBadImage) -> Split:
    """One split whose tweets say nothing of their objects.

    Raises:
        DataError: as `read_split`; or it is of the other task than the bundle, or has no pictures.
    """
    bundle = pipeline.bundle
    if files.task != bundle.task:
        raise DataError(f"{files.text} is for task {files.task}, the bundle is for {bundle.task}")
    if files.images is None:
        raise DataError(f"{files.text} has no pictures to find objects in: add their folder")
    return read_split(files, on_bad_image, labels=bundle.labels, pictures=bundle.pictures, objects=False)


def find_objects(
    pipeline: Pipeline,
    files: SplitFiles,
    examples: Sequence[Example],
    use: Callable[[Example, Found], None] | None = None,
) -> Iterator[Found]:
    """Objects of each tweet, in order, the best first.

    Every picture has a run of the grounder of its own, so what is found does not depend on the tweets beside it.

    Args:
        pipeline: finds objects by default, or always.
        files: the split, for messages.
        examples: of it.
        use: is given a tweet and its objects in one of several threads, before they are handed on.

    Raises:
        DataError: a tweet or its picture cannot be used.
        BackendError: the grounder failed.
    """
    if pipeline.finder is not None:
        pipeline.finder.batch = 1

    def search(example: Example) -> Found:
        found = _find(pipeline, files, example)
        if use is not None:
            use(example, found)
        return found

    with ThreadPoolExecutor(os.cpu_count() or 1, "hvpnet-search") as pool:
        for start in range(0, len(examples), _AT_ONCE):
            yield from pool.map(search, examples[start : start + _AT_ONCE])


def _find(pipeline: Pipeline, files: SplitFiles, example: Example) -> Found:
    try:
        try:
            return pipeline.prepare(example.tweet).objects or ()
        except TextError:
            if files.task == "re":
                raise
            return pipeline.prepare(replace(example.tweet, words=_ANY_WORD)).objects or ()
    except PictureError as error:
        cure = f', or take {SUBSTITUTE} with on_bad_image="substitute"'
        raise DataError(f"{files.text}: tweet {example.tweet.id}: {error}{cure}") from error
    except InputError as error:
        raise DataError(f"{files.text}: tweet {example.tweet.id}: {error}") from error
