"""Tweets in, entities or relations out: preparation, which may find objects, the two graphs, decoding."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.answering import Answering, check_prepared, whole_number
from hvpnet_runtime.backends import Backend, BundleBackend, Prefix, TextInputs, WarmUpShape, load_backend
from hvpnet_runtime.backends.base import MAX_PICTURES
from hvpnet_runtime.bundle import Bundle, Manifest
from hvpnet_runtime.decoding.crf import CrfDecoder
from hvpnet_runtime.decoding.entities import EntityDecoder, TaggedWindow, softmax
from hvpnet_runtime.errors import BackendError, BundleError, InputError, brief
from hvpnet_runtime.grounding.finder import ObjectFinder
from hvpnet_runtime.prefix_cache import PrefixCache
from hvpnet_runtime.preprocessing.encode_text import Encoding, TextEncoder
from hvpnet_runtime.preprocessing.pictures import Jpeg, OnBadImage
from hvpnet_runtime.preprocessing.prepare import Prepared, Preparer
from hvpnet_runtime.text_groups import group_by_length
from hvpnet_runtime.types import EntityResult, ObjectSource, RelationResult, Result, Tweet

CACHE_BYTES = 256 * 2**20
"""Default limit of the prefix cache; a prefix of bert-base takes 288 KiB."""

MAX_TEXTS = 128
"""Texts, or windows of long ones, in one run of the text graph, which takes memory for all of them."""


class Pipeline(Answering[Result]):
    """A loaded bundle. Thread-safe; make it with `Pipeline.load`.

    Attributes:
        backend: what runs the bundle; `backend.name` says which backend really loaded.
        cache: prefixes of pictures seen before.
        finder: what finds objects; None where nothing does.
        preparer: makes of tweets what the graphs read.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        preparer: Preparer,
        cache: PrefixCache,
        threads: int | None = None,
        finder: ObjectFinder | None = None,
    ) -> None:
        self.backend, self.cache, self.finder, self._bundle = backend, cache, finder, bundle
        super().__init__(threads or os.cpu_count() or 1, backend.lanes)
        self.preparer = preparer
        self._entities: EntityDecoder | None = None
        if bundle.task == "ner":
            self._entities = EntityDecoder(bundle.labels, CrfDecoder(**bundle.decoder_scores()))
        self._blank = backend.place_prefix(bundle.blank_prefix()) if bundle.sizes.pictures else None

    @classmethod
    def load(
        cls,
        path: Path | str,
        backend: str = "auto",
        *,
        window: bool = False,
        on_bad_image: OnBadImage = "error",
        cache_bytes: int = CACHE_BYTES,
        threads: int | None = None,
        precision: str | None = None,
        jpeg: Jpeg = "full",
        objects: ObjectSource | None = None,
        device: int | None = None,
    ) -> "Pipeline":
        """Check and load a bundle.

        Args:
            path: the bundle's folder.
            backend: `auto`, the first that loads of `hvpnet_runtime.backends.AUTO`, or a name of `BACKENDS` there.
            window: slide over texts beyond the piece budget instead of cutting them as published.
            on_bad_image: what to do about a whole picture that cannot be read; see `OnBadImage`.
            cache_bytes: limit of the prefix cache; 0 switches it off.
            threads: CPU threads of one call; by default all cores.
            precision: `fp32`, `fp16`, `int8` or `int8_fp16`; by default FP32 on a CPU, FP16 on a GPU where the bundle
                has it, or else the other of them; INT8 where it is asked for, or where there is nothing else.
            jpeg: how large JPEGs are decoded; see `Jpeg`.
            objects: which objects of a tweet are read; see `ObjectSource`, also for the default.
            device: number of the GPU among those that this process may use (`CUDA_VISIBLE_DEVICES`), from 0; by default
                the first. If it is given, `auto` loads no backend of the CPU.

        Raises:
            BundleError: the bundle is missing, damaged, edited, of another schema, or without this precision; or
                objects are to be found and it has no grounder.
            InputError: another argument is impossible, such as a GPU for a backend that runs on the CPU.
            BackendError: no backend runs here, or the one named does not; or there is no such GPU.
            MissingExtraError: the named backend's package is not installed, or one that finding objects needs.
        """
        if not isinstance(path, str | Path):
            raise BundleError(f"a bundle is the path of a folder, not {brief(path)}")
        threads = None if threads is None else whole_number("threads", threads, 1)
        device = None if device is None else whole_number("device", device, 0)
        cache = PrefixCache(whole_number("cache_bytes", cache_bytes, 0))
        bundle = Bundle.load(path)
        if objects == "found":
            _ = bundle.grounder  # or else it says what to do, before anything is loaded
        prepares = partial(
            Preparer, bundle, window=window, on_bad_image=on_bad_image, jpeg=jpeg, objects=objects, known=cache
        )
        loaded = load_backend(bundle, backend, threads, precision, device)
        return cls._of(loaded, bundle, prepares, cache, objects, threads)

    @classmethod
    def _of(
        cls,
        backend: BundleBackend,
        bundle: Bundle,
        prepares: Callable[..., Preparer],
        cache: PrefixCache,
        objects: ObjectSource | None,
        threads: int | None,
    ) -> "Pipeline":
        """A pipeline that owns this backend, which is closed if there cannot be one."""
        with ExitStack() as undo:
            undo.callback(backend.close)
            finder = load_finder(bundle, backend, objects)
            if finder is not None:
                undo.callback(finder.close)
            preparer = prepares(threads=threads, max_length=backend.max_length, find=finder)  # engines for short texts
            pipeline = cls(bundle, backend, preparer, cache, threads, finder)
            undo.pop_all()
        return pipeline

    def prepare(self, tweet: Tweet) -> Prepared:
        """Tokenise one tweet, find its objects where that is wanted, and decode those pictures that no cache knows.

        Raises:
            InputError: the tweet cannot be processed.
            BackendError: the grounder failed.
        """
        return self.preparer(tweet)

    def warm_up(self, shapes: Iterable[WarmUpShape] | None = None) -> None:
        """Do what would make the first requests slow before they come, and return when it is done.

        A grounder is warmed up for all batches of pictures, whatever the shapes.

        Args:
            shapes: batches to be ready for; by default all shapes that a GPU backend pads batches to, which may take
                seconds, and one small batch on a CPU.

        Raises:
            InputError: a shape is longer than the longest text.
            BackendError: the backend failed.
        """
        self._origin.check()
        wanted = list(shapes or ())
        most = min(self.bundle.manifest.limits.max_length, self.backend.max_length or sys.maxsize)
        for shape in wanted:
            if shape.length > most:
                raise InputError(f"{shape} is longer than the longest text, which has {most} pieces")
        self.backend.warm_up(wanted)
        if self.finder is not None:
            self.finder.grounder.warm_up()

    def start(self, batch: Sequence[Prepared]) -> Callable[[], list[Result]]:
        """Begin with the pictures of a batch, as `run` does; what is returned does the rest, and may do so elsewhere.

        While another thread does the rest, the next batch can begin; see `Backend.lanes` for how many at a time. Which
        pictures are computed together then depends on the order of the beginnings alone.

        Raises:
            InputError: as `run`.
            BackendError: as `run`, and so does what is returned.
        """
        self._origin.check()
        check_prepared(batch, Prepared)
        if not batch:
            return list
        prefixes = self._prefixes(batch)
        return lambda: self._finish(batch, prefixes)

    def _finish(self, batch: Sequence[Prepared], prefixes: Sequence[Sequence[Prefix]]) -> list[Result]:
        results: dict[int, Result] = {}
        for group in self._groups(batch):
            answers = self._run_texts([batch[place] for place in group], [prefixes[place] for place in group])
            results |= zip(group, answers, strict=True)
        return [results[place] for place in range(len(batch))]

    def _groups(self, batch: Sequence[Prepared]) -> list[list[int]]:
        """Tweets whose texts run together, by index."""
        if self.backend.run_tokens is None:
            return [list(range(len(batch)))]
        rows, lengths = [len(tweet.encodings) for tweet in batch], [tweet.length for tweet in batch]
        return group_by_length(rows, lengths, self.backend.run_tokens)

    def _run_texts(self, batch: Sequence[Prepared], prefixes: Sequence[Sequence[Prefix]]) -> list[Result]:
        encodings = [encoding for tweet in batch for encoding in tweet.encodings]
        rows = [prefix for tweet, prefix in zip(batch, prefixes, strict=True) for _ in tweet.encodings]
        text = self._text_inputs(encodings)
        outputs = self._encode_text(text, rows)  # [rows, T, labels] or [rows, relations]
        if not np.isfinite(outputs).all():
            raise BackendError(f"{self.backend.name} answered with NaN or infinity; try another backend or precision")
        if self._entities is None:
            return list(self._relations(batch, outputs))
        return list(self._entity_results(self._entities, batch, outputs, text.attention_mask))

    @property
    def bundle(self) -> Bundle:
        """What was loaded."""
        return self._bundle

    @property
    def backends(self) -> tuple[str, ...]:
        """See `Answering`."""
        return (self.backend.name,)

    def forget(self) -> None:
        """See `Answering`."""
        self.cache.clear()
        if self.finder is not None:
            self.finder.forget()
            self.finder.batch = 1

    @property
    def text_encoder(self) -> TextEncoder:
        """How the pipeline tokenises."""
        return self.preparer.encoder

    @property
    def without_objects(self) -> int:
        """How many tweets came with a picture and without objects so far, where nothing finds them by default."""
        return self.preparer.without_objects

    def close(self) -> None:
        """Free backend, grounder and cache. In a forked process there is nothing to free: they are its parent's."""
        if not self._origin.is_here:
            return
        self.cache.clear()
        with ExitStack() as held:  # whatever fails meanwhile
            held.callback(self.backend.close)
            if self.finder is not None:
                held.callback(self.finder.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prefixes(self, batch: Sequence[Prepared]) -> list[list[Prefix]]:
        """The prefixes of every tweet; each distinct picture that the cache does not know is computed once."""
        if self._blank is None:
            return [[] for _ in batch]
        pictures = {picture.key: picture for tweet in batch for picture in tweet.pictures if picture is not None}
        prefixes = {key: found for key in pictures if (found := self.cache.get(key)) is not None}
        missing = [key for key in pictures if key not in prefixes]
        for start in range(0, len(missing), MAX_PICTURES):
            part = missing[start : start + MAX_PICTURES]
            images = np.stack(self.preparer.pixels([pictures[key] for key in part]))  # [N, crop, crop, 3]
            for key, prefix in zip(part, self.backend.encode_pictures(images), strict=True):
                self.cache.put(key, prefix)
                prefixes[key] = prefix
        blank = self._blank
        return [[blank if each is None else prefixes[each.key] for each in tweet.pictures] for tweet in batch]

    def _text_inputs(self, encodings: Sequence[Encoding]) -> TextInputs:
        input_ids, attention_mask = self.text_encoder.pad(encodings)  # [rows, T]
        if self.bundle.manifest.head != "markers":
            return TextInputs(input_ids, attention_mask)
        head, tail = (
            np.array([getattr(encoding, name) for encoding in encodings], np.int64)  # [rows]
            for name in ("head_index", "tail_index")
        )
        return TextInputs(input_ids, attention_mask, head, tail)

    def _encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        parts = [slice(start, start + MAX_TEXTS) for start in range(0, len(prefixes), MAX_TEXTS)]
        return np.concatenate([self.backend.encode_text(text.rows(part), prefixes[part]) for part in parts])

    def _relations(self, batch: Sequence[Prepared], logits: npt.NDArray[np.float32]) -> Iterator[RelationResult]:
        for tweet, probabilities in zip(batch, softmax(logits), strict=True):
            order = np.argsort(-probabilities, kind="stable")
            by_name = {self.bundle.labels[index]: float(probabilities[index]) for index in order}
            relation, score = next(iter(by_name.items()))
            head, tail = tweet.mentions
            yield RelationResult(tweet.tweet.id, relation, score, head, tail, tweet.cut_words, tweet.objects, by_name)

    def _entity_results(
        self,
        decoder: EntityDecoder,
        batch: Sequence[Prepared],
        emissions: npt.NDArray[np.float32],
        mask: npt.NDArray[np.int64],
    ) -> Iterator[EntityResult]:
        rows = zip(emissions, decoder.decode(emissions, mask), strict=True)
        for tweet in batch:
            windows = []
            for window in tweet.windows:
                scores, path = next(rows)
                windows.append(TaggedWindow(window, scores[: len(path)], path))
            entities = decoder.entities(windows, tweet.text, tweet.words)
            yield EntityResult(tweet.tweet.id, entities, decoder.word_tags(windows), tweet.cut_words, tweet.objects)


def finds_objects(manifest: Manifest, objects: ObjectSource | None) -> bool:
    """Whether objects are found in pictures, for `Pipeline.load`'s argument of that name; answers list them then."""
    return objects in (None, "found") and manifest.grounder is not None


def load_finder(bundle: Bundle, backend: BundleBackend, objects: ObjectSource | None = None) -> ObjectFinder | None:
    """What finds objects for `Pipeline.load`'s argument of that name, or None if nothing is to.

    Raises:
        BundleError: the grounder is damaged.
        BackendError: the backend cannot load it.
        MissingExtraError: a package that finding objects needs is not installed.
    """
    if not finds_objects(bundle.manifest, objects):
        return None
    grounder = backend.load_grounder()
    try:
        return ObjectFinder(bundle, grounder)
    except BaseException:
        grounder.close()
        raise
