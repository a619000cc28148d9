"""The labels that entity recognition knows: BIO tags, and those of pieces that are no word."""

from collections.abc import Sequence

OUTSIDE = "O"
SPECIAL_LABELS = ("PAD", "X", "[CLS]", "[SEP]")
"""Labels of the published models beside BIO tags; words that get one count as O. X marks the pieces of a word after
its first."""


def bio_tag(label: str) -> str:
    """The BIO tag that a label stands for: itself, or O for one of `SPECIAL_LABELS`.

    Raises:
        ValueError: it is neither, as those of BIOES, BILOU or `B_PER` are: its entities would silently be lost.
    """
    if label in (OUTSIDE, *SPECIAL_LABELS):
        return OUTSIDE
    if label[:2] in ("B-", "I-") and label[2:] and label.split() == [label]:
        return label
    raise ValueError(
        f"{label[:80]!r} is no label of entities: they are B-TYPE, I-TYPE and O, and {', '.join(SPECIAL_LABELS)} for"
        " pieces that are no word"
    )


def bio_tags(labels: Sequence[str]) -> tuple[str, ...]:
    """The BIO tag of each label.

    Raises:
        ValueError: one is no BIO tag, or two types differ in capitals only, so that no I- would go on with its B-.
    """
    tags = tuple(map(bio_tag, labels))
    types: dict[str, str] = {}
    for tag in tags:
        kind = tag[2:]
        if types.setdefault(kind.casefold(), kind) != kind:
            raise ValueError(f"the entity types {types[kind.casefold()]!r} and {kind!r} differ in capitals only")
    return tags
