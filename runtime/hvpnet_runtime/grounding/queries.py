"""What a picture is searched for: the bundle's fixed words, or words of the tweet; and what makes vectors of them."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from hvpnet_runtime.backends.grounder import MAX_QUERIES, Grounder
from hvpnet_runtime.bundle import QUERY_TOKENIZER, Bundle
from hvpnet_runtime.bundle.grounder_spec import ADD_AGAIN
from hvpnet_runtime.errors import BackendError, BundleError
from hvpnet_runtime.grounding.noun_phrases import load_tagger, noun_phrases
from hvpnet_runtime.types import Mention

MAX_CHARACTERS = 200
"""Characters of a query of the text, which answers and the memory of what was found repeat; the rest is cut off."""

_UNKNOWN = "\U00012000"
"""A letter of cuneiform, which stands for words that no vocabulary has."""

Vectors: TypeAlias = npt.NDArray[np.float32]


Encode: TypeAlias = Callable[[tuple[str, ...]], Vectors]
"""Makes vectors float32 [Q, D] of queries; thread-safe."""


class Queries(Protocol):
    """Where the queries of a tweet come from; thread-safe."""

    def __call__(self, words: Sequence[str], mentions: Sequence[Mention]) -> tuple[str, ...]:
        """The queries of a tweet with these words and, for relations, head and tail; maybe none."""
        ...


def load_queries(bundle: Bundle) -> Queries:
    """The queries of a bundle's grounder.

    Raises:
        BundleError: it has none.
        MissingExtraError: textblob, which finds noun phrases, is not installed.
    """
    if bundle.grounder.queries == "fixed":
        return FixedQueries(bundle.grounder.words)
    if bundle.task == "ner":
        load_tagger()
    return text_queries


def load_encoder(bundle: Bundle, grounder: Grounder) -> Encode:
    """What encodes the queries of a bundle's grounder.

    Raises:
        BundleError: the bundle has no grounder, or what encodes its queries is damaged or another's.
    """
    if bundle.grounder.queries == "fixed":
        vectors = bundle.grounder_queries()
        return lambda _: vectors
    tokenizer = _load_tokenizer(bundle)
    _check_pieces(bundle, tokenizer, grounder)
    return TextEncoder(tokenizer, grounder)


class FixedQueries:
    """The same words for every tweet; see `Queries`."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self._words = words

    def __call__(self, words: Sequence[str], mentions: Sequence[Mention]) -> tuple[str, ...]:  # noqa: ARG002  the protocol's
        """See `Queries`."""
        return self._words


def text_queries(words: Sequence[str], mentions: Sequence[Mention]) -> tuple[str, ...]:
    """Head and tail of a relation, as published for MNRE, or else the noun phrases of the text; see `Queries`.

    They are lower-cased, as the published grounder reads them, cut at `MAX_CHARACTERS`, and each is asked once.
    """
    phrases = [mention.text for mention in mentions] if mentions else noun_phrases(words)
    plain = (" ".join(phrase.lower().split())[:MAX_CHARACTERS].rstrip() for phrase in phrases)
    return tuple(dict.fromkeys(phrase for phrase in plain if phrase))[:MAX_QUERIES]


class TextEncoder:
    """Encodes queries of the text; see `Encode`.

    Args:
        tokenizer: cuts queries at the bundle's limit of pieces.
        grounder: encodes them.
    """

    def __init__(self, tokenizer: Tokenizer, grounder: Grounder) -> None:
        self._tokenizer, self._grounder = tokenizer, grounder

    def __call__(self, queries: tuple[str, ...]) -> Vectors:
        """See `Encode`. Padding is piece 0, which the mask hides."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(queries))]
        input_ids = np.zeros((len(rows), max(map(len, rows))), np.int64)  # [Q, L]
        attention_mask = np.zeros_like(input_ids)  # [Q, L]
        for row, ids in enumerate(rows):
            input_ids[row, : len(ids)], attention_mask[row, : len(ids)] = ids, 1
        return self._grounder.encode_queries(input_ids, attention_mask)


def _load_tokenizer(bundle: Bundle) -> Tokenizer:
    content = bundle.read(QUERY_TOKENIZER)
    try:
        tokenizer = Tokenizer.from_buffer(content)
        tokenizer.no_padding()
        tokenizer.enable_truncation(bundle.grounder.max_length)
        pieces = [tokenizer.encode(word).ids for word in ("person", _UNKNOWN)]
    except BaseException as error:  # a panic of the library is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise _unusable(bundle, error) from error
    if not all(pieces):
        raise _unusable(bundle, "it makes no piece of a word")
    return tokenizer


def _check_pieces(bundle: Bundle, tokenizer: Tokenizer, grounder: Grounder) -> None:
    """Let the graph read the last piece of the vocabulary, which the tokeniser of another one may lack or exceed.

    Raises:
        BundleError: it does not.
    """
    last = max(tokenizer.get_vocab(with_added_tokens=True).values())
    input_ids = np.array([[*tokenizer.encode("person").ids[:-1], last]], np.int64)  # [1, L]
    try:
        grounder.encode_queries(input_ids, np.ones_like(input_ids))
    except BackendError as error:
        raise _unusable(bundle, f"queries.onnx does not read its piece {last}: {error}") from error


def _unusable(bundle: Bundle, reason: object) -> BundleError:
    shown = " ".join(str(reason).split())[:200]
    return BundleError(f"{bundle.path / QUERY_TOKENIZER} is no tokeniser of queries ({shown}): {ADD_AGAIN}")
