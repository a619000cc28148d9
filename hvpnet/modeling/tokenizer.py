"""The published tokeniser: BERT's WordPiece, always lower-casing, with the entity markers for relations.

Source: published code, `BertTokenizer.from_pretrained(bert_name, do_lower_case=True)` in processor/dataset.py.
"""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from hvpnet.errors import ConfigError
from hvpnet.files import VOCABULARY, read_json, read_text
from hvpnet_runtime.bundle import Task
from hvpnet_runtime.errors import brief
from hvpnet_runtime.preprocessing.encode_text import MARKERS

Added: TypeAlias = tuple[int, AddedToken]
"""An added token and its number."""

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_PARTS = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}
_DEFAULTS = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": True, "lowercase": True}
"""Settings of BertNormalizer; where it lower-cases, accents are stripped unless it is told not to."""


def load_tokenizer(folder: Path | str, task: Task) -> Tokenizer:
    """The tokeniser of a BERT folder, from its `vocab.txt` or the vocabulary in its `tokenizer.json`.

    Tokens that were added to the vocabulary (`add_tokens` of transformers, then `save_pretrained`) are found in a text
    before it is split, also within a word, as transformers' fast tokeniser does. Accents and Chinese characters are
    treated as `tokenizer_config.json` says, or the normalizer in `tokenizer.json`.

    Args:
        folder: for instance a copy of bert-base-uncased.
        task: `re` adds the four markers, unless the vocabulary has them already.

    Raises:
        ConfigError: the folder has neither file, its vocabulary is not a WordPiece one with BERT's special tokens,
            numbered without gaps, an added token can be found in no word, or its text is not split as BERT's uncased
            tokenisers split it.
    """
    vocab, added, settings = _read(Path(folder))
    vocab |= {token.content: number for number, token in added if token.content in SPECIAL}
    missing = [token for token in SPECIAL if token not in vocab]
    if missing:
        raise ConfigError(f"the vocabulary in {folder} lacks {', '.join(missing)}: it is not a BERT vocabulary")
    if set(vocab.values()) != set(range(len(vocab))):
        raise ConfigError(
            f"the vocabulary in {folder} does not number its {len(vocab)} pieces 0 to {len(vocab) - 1}:"
            " a piece may be there twice"
        )
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))  # noqa: S106  a token of text
    tokenizer.normalizer = normalizers.BertNormalizer(**settings)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    _add(tokenizer, added, Path(folder))
    if task == "re":
        tokenizer.add_special_tokens(list(MARKERS))
    return tokenizer


def _add(tokenizer: Tokenizer, added: Sequence[Added], folder: Path) -> None:
    """Add tokens under the numbers that the folder gives them."""
    for number, token in sorted(added, key=itemgetter(0)):
        content = token.content
        if content in SPECIAL:
            continue
        if content.split() != [content] or not tokenizer.normalizer.normalize_str(content).strip():
            raise ConfigError(
                f"the tokenizer in {folder} has the added token {brief(content)}, which can stand in no word:"
                " words hold neither spaces nor invisible characters alone"
            )
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
        if tokenizer.token_to_id(content) != number:
            raise ConfigError(
                f"the tokenizer in {folder} gives its added token {brief(content)} the number {number}, but"
                f" {tokenizer.token_to_id(content)} is the next after its pieces"
            )


def _read(folder: Path) -> tuple[dict[str, int], list[Added], dict[str, bool]]:
    """The numbers of the pieces, the added tokens, and the settings of the normalizer."""
    text, fast = folder / "vocab.txt", folder / "tokenizer.json"
    config = _read_config(folder / "tokenizer_config.json")
    if fast.is_file():
        try:
            described: Any = read_json(fast, VOCABULARY)
            model, added = described["model"], described["added_tokens"]
            kind, joint = model["type"], model.get("continuing_subword_prefix", "##")
            pieces = (kind, joint) == ("WordPiece", "##")
            vocab, tokens = ({**model["vocab"]}, [_added(each["id"], each) for each in added]) if pieces else ({}, [])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{fast} is not a tokeniser file: {_reason(error)}") from error
        if not pieces:
            raise ConfigError(
                f"{fast} is a {brief(kind)} tokeniser with {brief(joint)}; HVPNeT checkpoints need BERT's WordPiece"
                " with '##'"
            )
        return vocab, tokens, _settings(folder, config, described)
    if text.is_file():
        try:
            lines = read_text(text, VOCABULARY).removesuffix("\n").split("\n")
        except (OSError, ValueError) as error:
            raise ConfigError(f"{text} is not a vocabulary: {error}") from error
        vocab = {line: index for index, line in enumerate(lines)}
        return vocab, _added_beside(folder, config or {}), _settings(folder, config, {})
    raise ConfigError(
        f"{folder} has neither vocab.txt nor tokenizer.json: name the folder of the BERT that was trained on"
    )


def _read_config(path: Path) -> dict[str, Any] | None:
    """What transformers saved beside either file, or None."""
    if not path.is_file():
        return None
    try:
        config = read_json(path, VOCABULARY)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path} describes no tokeniser: expected a JSON object")
    return config


def _settings(folder: Path, config: Mapping[str, Any] | None, described: Mapping[str, Any]) -> dict[str, bool]:
    """Settings of the normalizer by `tokenizer_config.json` and `tokenizer.json`, which must agree.

    transformers' BertTokenizer reads the former alone, and other loaders the latter alone.
    """
    said = []
    if config is not None:
        if config.get("do_basic_tokenize", True) is not True or config.get("never_split"):
            raise ConfigError(
                f"{folder / 'tokenizer_config.json'} has do_basic_tokenize or never_split: HVPNeT checkpoints need"
                " BERT's own splitting of words"
            )
        names = {"tokenize_chinese_chars": "handle_chinese_chars", "do_lower_case": "lowercase"}
        said.append({names.get(name, name): value for name, value in config.items()})
    for part, kind in _PARTS.items():
        each = described.get(part, {"type": kind})
        found = each.get("type") if isinstance(each, dict) else each
        if found != kind:
            raise ConfigError(f"{folder / 'tokenizer.json'} has the {part} {brief(found)}: it must be BERT's, {kind}")
    if "normalizer" in described:
        said.append(described["normalizer"])
    settings = [_DEFAULTS | {name: each[name] for name in _DEFAULTS if each.get(name) is not None} for each in said]
    for name in _DEFAULTS:
        values = [each[name] for each in settings]
        if not all(type(value) is bool for value in values) or len(set(values)) > 1:
            raise ConfigError(
                f"the tokenizer in {folder} has {name} {' and '.join(map(brief, values))} in tokenizer_config.json and"
                " tokenizer.json: it must be true or false, and the same in both"
            )
    chosen = settings[0] if settings else {**_DEFAULTS}
    if not chosen["lowercase"]:
        raise ConfigError(
            f"the tokenizer in {folder} is a cased one (do_lower_case or lowercase is false), and the published code"
            " lower-cases with any: set it to true in a copy if the checkpoint was trained so"
        )
    return chosen


def _added_beside(folder: Path, config: Mapping[str, Any]) -> list[Added]:
    """What transformers saved beside a vocab.txt: numbers of added tokens in one file, their flags in the other."""
    which = folder / "added_tokens.json"
    try:
        numbers: Any = read_json(which, VOCABULARY) if which.is_file() else {}
        described = {int(number): token for number, token in config.get("added_tokens_decoder", {}).items()}
        plain = [_added(number, {"content": each}) for each, number in numbers.items() if number not in described]
        return plain + [_added(number, token) for number, token in described.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{which} and tokenizer_config.json describe no added tokens: {_reason(error)}") from error


def _added(number: object, described: Mapping[str, Any]) -> Added:
    """As `tokenizer.json` has it; what is left out is as transformers' `add_tokens` makes it."""
    if type(number) is not int:
        raise TypeError(f"{brief(number)} is no number of a token")
    special = described.get("special", False)
    flags = {name: described.get(name, False) for name in ("single_word", "lstrip", "rstrip")}
    normalized = described.get("normalized", not special)
    return number, AddedToken(described["content"], special=special, normalized=normalized, **flags)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, OSError | ValueError) else repr(error)
