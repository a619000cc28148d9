"""The published tokeniser: BERT's WordPiece, always lower-casing, with the entity markers for relations.

Source: published code, `BertTokenizer.from_pretrained(bert_name, do_lower_case=True)` in processor/dataset.py.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from hvpnet.errors import ConfigError
from hvpnet_runtime.bundle import Task
from hvpnet_runtime.preprocessing.encode_text import MARKERS

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def load_tokenizer(folder: Path | str, task: Task) -> Tokenizer:
    """The tokeniser of a BERT folder, from its `vocab.txt` or the vocabulary in its `tokenizer.json`.

    Args:
        folder: for instance a copy of bert-base-uncased.
        task: `re` adds the four markers, unless the vocabulary has them already.

    Raises:
        ConfigError: the folder has neither file, or its vocabulary is not a WordPiece one with BERT's special tokens,
            numbered without gaps.
    """
    vocab = _read_vocab(Path(folder))
    missing = [token for token in SPECIAL if token not in vocab]
    if missing:
        raise ConfigError(f"the vocabulary in {folder} lacks {', '.join(missing)}: it is not a BERT vocabulary")
    if set(vocab.values()) != set(range(len(vocab))):
        raise ConfigError(
            f"the vocabulary in {folder} does not number its {len(vocab)} pieces 0 to {len(vocab) - 1}:"
            " a piece may be there twice"
        )
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))  # noqa: S106  a token of text
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    if task == "re":
        tokenizer.add_special_tokens(list(MARKERS))
    return tokenizer


def _read_vocab(folder: Path) -> dict[str, int]:
    text, fast = folder / "vocab.txt", folder / "tokenizer.json"
    if fast.is_file():
        try:
            described = json.loads(fast.read_text("utf-8"))
            model, added = described["model"], described["added_tokens"]
            if model["type"] == "WordPiece":
                return {**model["vocab"], **{token["content"]: token["id"] for token in added}}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{fast} is not a tokeniser file: {error!r}") from error
        raise ConfigError(f"{fast} is a {model['type']} tokeniser; HVPNeT checkpoints need BERT's WordPiece")
    if text.is_file():
        try:
            lines = text.read_text("utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{text} is not a vocabulary: {error}") from error
        return {line: index for index, line in enumerate(lines)}
    raise ConfigError(
        f"{folder} has neither vocab.txt nor tokenizer.json: name the folder of the BERT that was trained on"
    )
