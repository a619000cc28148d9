"""The tokeniser of a bundle, from the bytes that were checked."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BundleError

_PARTS = {"model": "WordPiece", "normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}
"""Types of a BERT tokeniser's parts. Of others the library panics at some, or ends the process for want of memory."""

_UNKNOWN = "\N{CUNEIFORM SIGN A}"
"""A word that no BERT vocabulary has: it becomes [UNK], which fails where that is not in the vocabulary."""


def load_tokenizer(bundle: Bundle) -> Tokenizer:
    """Make the tokeniser of a bundle.

    Raises:
        BundleError: tokenizer.json is not what the manifest says, no BERT tokeniser, or not the text graph's.
    """
    file, content = bundle.path / "tokenizer.json", bundle.read("tokenizer.json")
    _check_parts(content, file)
    try:
        tokenizer = Tokenizer.from_buffer(content)
        tokenizer.encode([_UNKNOWN], is_pretokenized=True, add_special_tokens=False)
        numbers = tokenizer.get_vocab().values()
    except BaseException as error:  # a panic of the library is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise _unusable(file, error) from error
    size = bundle.sizes.vocabulary
    if len(numbers) != size or max(numbers) >= size:
        raise BundleError(
            f"{file} has {len(numbers)} pieces numbered up to {max(numbers, default=0)}, the text graph {size}: export"
            " the checkpoint again"
        )
    return tokenizer


def _check_parts(content: bytes, file: Path) -> None:
    try:
        described: Any = json.loads(content)
        found = {name: described[name]["type"] for name in _PARTS}
        others = [name for name in ("padding", "truncation") if described.get(name) is not None]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unusable(file, error) from error
    if found != _PARTS or others:
        raise _unusable(file, f"it has {', '.join([*map(str, found.values()), *others])[:200]}")


def _unusable(file: Path, reason: object) -> BundleError:
    return BundleError(f"{file} is no BERT tokeniser ({' '.join(str(reason).split())}): export the checkpoint again")
