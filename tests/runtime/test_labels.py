"""Labels of entity recognition: BIO tags and the published special ones; what else would be lost as O is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from hvpnet_runtime.decoding.crf import CrfDecoder
from hvpnet_runtime.decoding.entities import EntityDecoder
from hvpnet_runtime.errors import BundleError
from hvpnet_runtime.labels import bio_tags


def test_published_labels() -> None:
    labels = ("PAD", "O", "B-MISC", "I-MISC", "B-PER", "I-PER", "X", "[CLS]", "[SEP]")
    assert bio_tags(labels) == ("O", "O", "B-MISC", "I-MISC", "B-PER", "I-PER", "O", "O", "O")


def test_other_types_and_schemes_that_the_decoder_reads() -> None:
    assert bio_tags(("O", "B-creative-work", "I-creative-work")) == ("O", "B-creative-work", "I-creative-work")
    assert bio_tags(("O", "I-PER", "I-LOC", "B-LOC")) == ("O", "I-PER", "I-LOC", "B-LOC")  # IOB1, as CoNLL-2003 is
    assert bio_tags(("B-DATE", "B-LOC", "I-LOC")) == ("B-DATE", "B-LOC", "I-LOC")  # all dates have one word
    assert bio_tags(("O", "B-人", "I-人")) == ("O", "B-人", "I-人")


NOT_BIO = [
    "S-PER", "E-PER", "L-PER", "U-PER", "M-PER", "B_PER", "I_PER", "PER-B", "PER_I", "b-per", "i-PER", "B-", "I-", "B",
    "B-PER ", " B-PER", "B- PER", "B-P ER", "B\u2010PER", "B:PER", "BPER", "PER", "o", "0", "[PAD]", "pad", "",
    "B-PER\u200b", "B-P\xadER", "I-PER\xa0", "B-\ufeffPER", "B-PER\x00", "B-P\u2003ER", "B-\u202ePER", "B-\ue000",
    "/per/per/peer",
]  # fmt: skip


@pytest.mark.parametrize("label", NOT_BIO)
def test_a_label_that_would_be_lost_is_named(label: str) -> None:
    with pytest.raises(ValueError, match="is no label of entities: they are B-TYPE, I-TYPE and O") as caught:
        bio_tags(("O", "B-LOC", label))
    assert str(caught.value).startswith(repr(label))


def test_types_that_differ_in_capitals_only() -> None:
    with pytest.raises(ValueError, match="the entity types 'PER' and 'Per' differ in capitals only"):
        bio_tags(("O", "B-PER", "I-Per"))


@pytest.mark.parametrize(
    ("start", "other", "shown"),
    [
        ("PER", "LOC", "'LOC'"),
        ("PER", "P\u0415R", r"'P\\u0415R'"),  # Cyrillic
        ("PER", "PER\ufe0f", r"'PER\\ufe0f'"),  # a variation selector
        ("cafe\u0301", "caf\xe9", r"'caf\\xe9'"),
    ],
)
def test_types_whose_halves_differ(start: str, other: str, shown: str) -> None:
    with pytest.raises(ValueError, match=f" has a B- label and no I-, {shown} an I- label and no B-: every entity"):
        bio_tags(("O", f"B-{start}", f"I-{other}", "B-ORG", "I-ORG"))


def test_a_long_label_is_not_shown_whole() -> None:
    for labels in (("S" * 5000,), ("B-" + "x" * 5000, "I-" + "y" * 5000), ("B-" + "x" * 5000, "I-" + "X" * 5000)):
        with pytest.raises(ValueError, match="entit") as caught:
            bio_tags(labels)
        assert len(str(caught.value)) < 600


def test_a_bundle_with_such_labels_is_refused() -> None:
    crf = CrfDecoder(*np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32))
    with pytest.raises(BundleError, match=r"'S-PER' is no label of entities.*: export the checkpoint again"):
        EntityDecoder(("O", "B-PER", "S-PER"), crf)


@pytest.mark.parametrize(
    ("name", "label"), [("bioes.json", "'S-PER'"), ("mixed.json", "'E-PER'"), ("underscore.json", "'B_MISC'")]
)
def test_label_files_that_failed(shared: Path, name: str, label: str) -> None:
    path = shared / "cases" / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    with pytest.raises(ValueError, match=f"^{label} is no label"):
        bio_tags(json.loads(path.read_text("utf-8")))
