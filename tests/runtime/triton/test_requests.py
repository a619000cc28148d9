"""Tensors to tweets, results to tensors, and errors where they belong."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_grounder import COLOURS, add_grounder

from hvpnet_runtime import InputError, PictureError, Pipeline, TextError, Tweet
from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.triton.requests import Request, answer, read_tweet


@pytest.fixture(scope="module")
def pipeline(ner_bundle: Path) -> Pipeline:
    return Pipeline.load(ner_bundle, "onnxruntime-cpu")


def strings(*rows: list[bytes]) -> Any:
    return np.array(rows, np.object_)


def decoded(rows: Any) -> list[Any]:
    return [json.loads(row) for row in rows.ravel()]


def test_a_tweet_has_the_keys_of_json_lines() -> None:
    text = json.dumps({"id": [7], "words": ["a", "b"], "head": [0, 1], "tail": [1, 2], "boxes": [[0, 0, 9, 9]]})
    assert read_tweet(text.encode(), b"jpeg", [b"", b"png", b""]) == Tweet(
        words=["a", "b"], image=b"jpeg", objects=[b"png"], boxes=[[0, 0, 9, 9]], head=[0, 1], tail=[1, 2], id=[7]
    )
    assert read_tweet(b'{"text": "Rome"}') == Tweet(text="Rome")
    assert read_tweet(b'{"text": "Rome", "boxes": []}', objects=[b""]) == Tweet(text="Rome", objects=[], boxes=[])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff", "not UTF-8"),
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "not a JSON object but list"),
        (b'{"txt": "Rome"}', "unknown keys 'txt'"),
        (b'{"text": "Rome", "objects": ["a.png"], "image": "/a.jpg"}', "TWEET has image and objects"),
    ],
)
def test_what_is_no_tweet(text: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_tweet(text)


def test_answers_in_order_and_errors_in_their_place(pipeline: Pipeline) -> None:
    good, bad = [b'{"text": "Anna saw Rome", "id": 1}'], [b'{"text": ""}']
    found = answer(
        pipeline,
        [
            Request(strings(good, good)),
            Request(strings(bad)),
            Request(strings(good), images=strings([b"no picture"])),
            Request(strings(good, bad), objects=strings([b"", b""], [b"", b""])),
            Request(strings(good)),
        ],
    )
    (expected,) = pipeline([Tweet(text="Anna saw Rome", id=1)])
    rows = json.loads(json.dumps(expected.to_dict()))
    assert [row["tags"] for row in decoded(found[0])] == [rows["tags"]] * 2
    assert (found[0].shape, found[0].dtype) == ((2, 1), np.dtype(object))
    assert [(type(error), str(error).split(":")[0]) for error in found[1:4]] == [
        (TextError, "the text is empty; give at least one word"),
        (PictureError, "picture <bytes> is not an image file; formats read"),
        (TextError, "tweet 1"),
    ]
    assert decoded(found[4])[0]["tags"] == rows["tags"]


def test_an_engine_that_fails_fails_all_but_what_was_wrong_before(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BackendError("out of memory")

    monkeypatch.setattr(pipeline.backend, "encode_text", fail)
    good, bad = Request(strings([b'{"text": "Rome"}'])), Request(strings([b'{"text": ""}']))
    assert [type(error) for error in answer(pipeline, [good, bad, good])] == [BackendError, TextError, BackendError]


def test_a_bug_fails_one_request(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = pipeline.prepare

    def broken(tweet: Tweet) -> Any:
        return {}[tweet.id] if tweet.id == "bug" else prepare(tweet)

    monkeypatch.setattr(pipeline, "prepare", broken)
    requests = [Request(strings([json.dumps({"text": "Rome", "id": each}).encode()])) for each in ("bug", 2)]
    found = answer(pipeline, requests)
    assert isinstance(found[0], KeyError)
    assert decoded(found[1])[0]["id"] == 2


def test_no_request_at_all(pipeline: Pipeline) -> None:
    assert answer(pipeline, []) == []


def test_objects_are_found_where_the_request_has_none(ner_bundle: Path, tmp_path: Path) -> None:
    bundle = add_grounder(Path(shutil.copytree(ner_bundle, tmp_path / "bundle")))
    image = np.full((64, 64, 3), 255, np.uint8)
    image[8:40, 4:24] = COLOURS["red"]
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    tweets, images = strings([b'{"text": "Anna saw Rome"}']), strings([file.getvalue()])
    with Pipeline.load(bundle, "onnxruntime-cpu") as finding:
        found, none = answer(finding, [Request(tweets, images), Request(tweets, images, objects=strings([b"", b""]))])
    (row,) = decoded(found)
    assert row["objects"] == [{"box": [4, 8, 24, 40], "query": "red", "score": pytest.approx(640 / 4096)}]
    assert decoded(none)[0]["objects"] == []
