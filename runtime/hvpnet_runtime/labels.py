"""The labels that the runtime knows: BIO tags, those of pieces that are no word, and that of pairs without relation."""

from collections.abc import Sequence

from hvpnet_runtime.errors import brief

OUTSIDE = "O"
SPECIAL_LABELS = ("PAD", "X", "[CLS]", "[SEP]")
"""Labels of the published models beside BIO tags; words that get one count as O. X marks the pieces of a word after
its first."""

NO_RELATION = "None"
"""The relation of pairs that have none, which published scores leave out."""


def bio_tag(label: str) -> str:
    """The BIO tag that a label stands for: itself, or O for one of `SPECIAL_LABELS`.

    Raises:
        ValueError: it is neither, as those of BIOES, BILOU or `B_PER` are: its entities would silently be lost.
    """
    if label in (OUTSIDE, *SPECIAL_LABELS):
        return OUTSIDE
    if label[:2] in ("B-", "I-") and label[2:] and label.isprintable() and " " not in label:  # nothing unseen
        return label
    raise ValueError(
        f"{brief(label)} is no label of entities: they are B-TYPE, I-TYPE and O, and {', '.join(SPECIAL_LABELS)} for"
        " pieces that are no word"
    )


def bio_tags(labels: Sequence[str]) -> tuple[str, ...]:
    """The BIO tag of each label.

    Raises:
        ValueError: one is no BIO tag; or two types differ in capitals only, or one has a B- alone and another an I-
            alone, so that no I- would go on with its B-. I- alone is IOB1 (CoNLL-2003 has no B-PER), B- alone a type of
            single words.
    """
    tags = tuple(map(bio_tag, labels))
    types: dict[str, str] = {}
    for tag in tags:
        kind = tag[2:]
        if types.setdefault(kind.casefold(), kind) != kind:
            raise ValueError(
                f"the entity types {brief(types[kind.casefold()])} and {brief(kind)} differ in capitals only"
            )
    begun, continued = ([tag[2:] for tag in tags if tag[:2] == start] for start in ("B-", "I-"))
    only_begun = [kind for kind in begun if kind not in continued]
    only_continued = [kind for kind in continued if kind not in begun]
    if only_begun and only_continued:
        first, second = (ascii(kinds[0][:80]) for kinds in (only_begun, only_continued))  # look-alikes look different
        raise ValueError(
            f"the entity type {first} has a B- label and no I-, {second} an I- label and no B-: every entity of theirs"
            " would be split; write both labels of a type with the same characters"
        )
    return tags
