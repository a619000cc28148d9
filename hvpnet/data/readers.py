"""Readers of the published file formats, one function each."""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hvpnet.data.examples import NER_LABELS, EntityExample, RelationExample
from hvpnet.errors import DataError
from hvpnet.files import DATA_SET, load_torch, parse_json, read_json, read_text
from hvpnet_runtime.errors import brief
from hvpnet_runtime.types import Span, Tweet

_IMAGE_LINE = "IMGID:"
_LONGEST_ROW = 2**16
"""Characters of a row of MNRE; the longest published one has 414."""


def read_entity_text(path: Path, labels: Sequence[str] = ()) -> list[tuple[str, EntityExample]]:
    r"""Reads the text of Twitter-2015 or Twitter-2017.

    A line `IMGID:<id>`, then one line `word\ttag` per word, then a blank line. The type OTHER is called MISC in the
    labels (published code).

    Args:
        path: the text file.
        labels: tags that may occur beside the published ones, such as those of a bundle of one's own.

    Returns:
        Per tweet the name of its image, `<id>.jpg`, and the example without pictures.

    Raises:
        DataError: a line is not of that form; the message names it.
    """
    rows: list[tuple[str, EntityExample]] = []
    image = ""
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*_lines(path), ""], start=1):
        where = f"{path}:{number}"
        if line.strip() and not line.startswith(_IMAGE_LINE):
            if not image:
                raise DataError(f"{where}: a word before any {_IMAGE_LINE} line: every tweet begins with one")
            word, tag = _word_and_tag(line, where, labels)
            words.append(word)
            tags.append(tag)
            continue
        if image and not words:
            raise DataError(f"{where}: the tweet of image {brief(image)} has no words: add them or remove it")
        if image:
            rows.append((f"{image}.jpg", EntityExample(Tweet(words=tuple(words), id=len(rows)), tuple(tags))))
        image, words, tags = line.removeprefix(_IMAGE_LINE).strip(), [], []
        if line.strip() and not image:
            raise DataError(f"{where}: {_IMAGE_LINE} without the number of an image: add it")
    return rows


def _word_and_tag(line: str, where: str, labels: Sequence[str]) -> tuple[str, str]:
    word, tab, tag = line.partition("\t")
    if not word or not tab:
        raise DataError(f"{where}: expected a word, a tab and a tag, got {brief(line)}")
    if tag in {"B-OTHER", "I-OTHER"} and tag not in labels:
        tag = tag[:2] + "MISC"
    known = dict.fromkeys((*NER_LABELS, *labels))
    if tag not in known:
        raise DataError(f"{where}: unknown tag {brief(tag)}: known are {', '.join(known)}")
    return word, tag


def read_relation_text(path: Path, relations: tuple[str, ...] | None) -> list[tuple[str, RelationExample]]:
    """Reads the text of MNRE: one Python dict a line with token, h, t, img_id and relation.

    Args:
        path: the text file.
        relations: the relations that may occur; None for any.

    Returns:
        Per instance the name of its image and the example without pictures, whose `id` is its row number.

    Raises:
        DataError: a line is not such a dict, a span lies outside the words, or a relation is unknown.
    """
    rows = []
    for row, line in enumerate(_lines(path)):
        where = f"{path}:{row + 1}"
        if len(line) > _LONGEST_ROW:  # as Python objects it takes some 600 times its length
            raise DataError(f"{where}: a row of {len(line)} characters: more than {_LONGEST_ROW} are not read")
        try:
            image, example = _relation_row(ast.literal_eval(line), row)
        except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
            raise DataError(
                f"{where}: expected a dict with token, h, t, img_id and relation: {type(error).__name__}:"
                f" {str(error)[:200]}"
            ) from error
        if relations is not None and example.relation not in relations:
            raise DataError(f"{where}: unknown relation {brief(example.relation)}: known are {', '.join(relations)}")
        rows.append((image, example))
    return rows


def _relation_row(fields: dict[str, Any], row: int) -> tuple[str, RelationExample]:
    words, image, relation = fields["token"], fields["img_id"], fields["relation"]
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise TypeError("token is not a list of words")
    if not isinstance(image, str) or not isinstance(relation, str):
        raise TypeError("img_id and relation are not both text")
    head, tail = _span(fields["h"]["pos"], len(words)), _span(fields["t"]["pos"], len(words))
    return image, RelationExample(Tweet(words=tuple(words), head=head, tail=tail, id=row), relation)


def _span(position: Sequence[int], words: int) -> Span:
    start, end = position
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= words):
        raise ValueError(f"span {brief(position)} lies outside the {words} words")
    return start, end


def read_relation_dictionary(path: Path) -> tuple[str, ...]:
    """Reads `{relation: index}` of a JSON file.

    Returns:
        The relations by index.

    Raises:
        DataError: the file is not such a dictionary, or its indices are not 0, 1, 2, ...
    """
    try:
        indices = parse_json("\n".join(_lines(path)))
    except ValueError as error:
        raise DataError(f"{path}: is not JSON: {error}") from error
    if not isinstance(indices, dict) or not all(type(index) is int for index in indices.values()):
        raise DataError(f"{path}: expected one JSON object of relation names and indices")
    if sorted(indices.values()) != list(range(len(indices))):
        raise DataError(f"{path}: the indices of the {len(indices)} relations are not 0 to {len(indices) - 1}")
    return tuple(sorted(indices, key=indices.__getitem__))


def collect_relations(path: Path) -> tuple[str, ...]:
    """The relations of an MNRE text in alphabetical order, "None" last, as the published dictionary has them."""
    relations = {example.relation for _, example in read_relation_text(path, relations=None)}
    return tuple(sorted(relations, key=lambda relation: (relation == "None", relation)))


def read_object_lists(path: Path) -> dict[str, tuple[str, ...]]:
    """Reads the crops of every tweet: a `*_dict.pth` as published, or the same dictionary as JSON.

    Returns:
        The file names of the crops, most important first. The key is the image's name (NER) or the row number in
        the text (MNRE), as text in both cases.

    Raises:
        DataError: the file is not such a dictionary.
        MissingExtraError: it is a `*_dict.pth` and torch is not installed.
    """
    try:
        lists = read_json(path, DATA_SET) if path.suffix == ".json" else load_torch(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a plain dictionary of crops ({error}): write it as JSON") from error
    if not isinstance(lists, Mapping):
        raise DataError(f"{path}: expected a dictionary of crops, got {type(lists).__name__}")
    for key, names in lists.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{path}: the crops of {brief(key)} are not a list of file names")
    return {str(key): tuple(names) for key, names in lists.items()}


def _lines(path: Path) -> list[str]:
    try:
        # Not splitlines(): tweets hold characters that it takes for line ends.
        return read_text(path, DATA_SET).rstrip("\n").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
