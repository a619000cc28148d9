"""A pipeline whose bundle has a grounder: what is found is read as what is given, and answers say it."""

import io
import json
import logging
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_grounder import COLOURS, add_grounder

from hvpnet.cli import main
from hvpnet.cli.predict import _readable
from hvpnet_runtime import BackendError, BundleError, InputError, MissingExtraError, Pipeline, Tweet
from hvpnet_runtime.preprocessing import encoded_picture
from hvpnet_runtime.types import EntityResult, FoundObject, Result

pytestmark = pytest.mark.heavy

TEXT = "Jordan was great in Madison today with a red car"
BOXES = {"red": (4, 8, 24, 40), "blue": (40, 0, 64, 12), "green": (0, 52, 10, 64)}


def photo(seed: int = 0, **boxes: tuple[int, int, int, int]) -> bytes:
    """A picture of its own, grey, with the colours where they are wanted."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(np.repeat(rng.integers(90, 160, (64, 64, 1), np.uint8), 3, axis=2))
    for colour, box in boxes.items():
        image.paste(COLOURS[colour], box)
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


@pytest.fixture
def grounded(bundle_of: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    def bundle(*kind: str, **settings: Any) -> Path:
        out = tmp_path / "-".join(("grounded", *kind))
        return add_grounder(Path(shutil.copytree(bundle_of(*kind), out)), **settings)

    return bundle


def without_found(result: Result) -> Result:
    return replace(result, objects=None)


@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "openvino"])
@pytest.mark.parametrize(
    "kind", [("ner",), ("re",), pytest.param(("ner", "only_obj"), marks=pytest.mark.heavy)], ids="-".join
)
@pytest.mark.parametrize("form", ["bytes", "array"])
def test_found_boxes_given_back_give_the_identical_answer(
    grounded: Callable[..., Path], backend: str, kind: tuple[str, ...], form: str
) -> None:
    pair = {"head": (0, 6), "tail": (20, 27)} if kind[0] == "re" else {}
    for number in range(4):
        picture: Any = photo(number, **dict(list(BOXES.items())[:number]))
        if form == "array":
            picture = np.asarray(Image.open(io.BytesIO(picture)))
        tweet = Tweet(text=TEXT, image=picture, id=number, **pair)
        path = grounded(*kind) if number == 0 else path  # noqa: F821
        with Pipeline.load(path, backend) as pipeline:
            (result,) = pipeline([tweet])
        assert result.objects is not None
        assert {each.query: each.box for each in result.objects} == dict(list(BOXES.items())[:number])
        with Pipeline.load(path, backend, objects="given") as pipeline:
            (given,) = pipeline([replace(tweet, boxes=[each.box for each in result.objects])])
            (none,) = pipeline([tweet])
        assert given == without_found(result)
        if number:
            assert none != given  # the model looks at the crops


def test_answers_say_what_was_found(grounded: Callable[..., Path]) -> None:
    with Pipeline.load(grounded("ner"), "onnxruntime-cpu") as pipeline:
        (result,) = pipeline([Tweet(text=TEXT, image=photo(red=BOXES["red"]))])
        assert result.objects == (FoundObject(BOXES["red"], "red", pytest.approx(640 / 4096)),)
        assert list(result.to_dict()) == ["id", "entities", "tags", "cut_words", "objects"]
        (answer,) = json.loads(json.dumps(result.to_dict()))["objects"]
        assert answer == {"box": [4, 8, 24, 40], "query": "red", "score": pytest.approx(640 / 4096)}


def test_which_objects_are_read(grounded: Callable[..., Path]) -> None:
    path, image = grounded("ner"), photo(red=BOXES["red"])
    bare = Tweet(text=TEXT, image=image)
    given, none = replace(bare, boxes=[BOXES["blue"]]), replace(bare, objects=())
    no_boxes, no_image = replace(bare, boxes=[]), replace(bare, image=None)
    crops = replace(bare, objects=[photo(7)])

    def answers(objects: Any) -> list[Result]:
        with Pipeline.load(path, "onnxruntime-cpu", objects=objects) as pipeline:
            return pipeline([bare, given, none, no_boxes, no_image, crops], batch_size=1)

    default, only_given, found, nothing = (answers(each) for each in (None, "given", "found", "none"))
    listed = [result.objects for result in default]
    assert [each and each[0].query for each in listed] == ["red", (), (), (), (), ()]
    assert list(map(without_found, default[1:])) == only_given[1:]
    assert default[2] == default[3]
    assert without_found(default[0]) != only_given[0] == only_given[2]
    assert [result.objects for result in only_given + nothing] == [None] * 12
    assert found[:4] == [default[0]] * 4
    assert found[5] == default[0]
    assert found[4] == default[4]
    assert nothing == [only_given[2]] * 4 + [only_given[4], only_given[2]]


def test_objects_cannot_be_found_without_a_grounder(ner_bundle: Path) -> None:
    with pytest.raises(BundleError, match="has no grounder, which finds objects: give the bundle one"):
        Pipeline.load(ner_bundle, "onnxruntime-cpu", objects="found")
    with pytest.raises(InputError, match="objects must be given, found or none, not 'all'"):
        Pipeline.load(ner_bundle, "onnxruntime-cpu", objects="all")  # type: ignore[arg-type]


@pytest.mark.parametrize("objects", ["found", None])
def test_a_model_that_reads_no_pictures_is_not_offered_a_grounder(bundle_of: Any, objects: Any) -> None:
    path = bundle_of("ner", "text_only")
    if objects == "found":
        message = r"^the model reads no pictures \(variant text_only\): a grounder finds nothing for it$"
        with pytest.raises(BundleError, match=message):
            Pipeline.load(path, "onnxruntime-cpu", objects="found")
    else:
        with Pipeline.load(path, "onnxruntime-cpu") as pipeline:
            pipeline([Tweet(text=TEXT, image=photo())])
            assert pipeline.without_objects == 0


def test_without_a_grounder_tweets_without_objects_are_counted(ner_bundle: Path) -> None:
    bare = Tweet(text=TEXT, image=photo())
    tweets = [bare, bare, replace(bare, objects=()), replace(bare, boxes=[(0, 0, 9, 9)]), replace(bare, image=None)]
    with Pipeline.load(ner_bundle, "onnxruntime-cpu") as pipeline:
        results = pipeline(tweets)
        assert pipeline.without_objects == 2
        assert "objects" not in results[0].to_dict()
    with Pipeline.load(ner_bundle, "onnxruntime-cpu", objects="given") as pipeline:
        pipeline(tweets)
        assert pipeline.without_objects == 0


def test_a_grounder_that_is_not_needed_is_not_loaded(grounded: Callable[..., Path], monkeypatch: Any) -> None:
    path = grounded("ner")
    monkeypatch.setattr(
        "hvpnet_runtime.backends.onnxruntime.OnnxRuntimeBackend.load_grounder", lambda _: pytest.fail("loaded")
    )
    for objects in ("given", "none"):
        Pipeline.load(path, "onnxruntime-cpu", objects=objects).close()  # type: ignore[arg-type]


def test_a_picture_is_decoded_once_for_grounding_and_crops(grounded: Callable[..., Path], monkeypatch: Any) -> None:
    decoded, real = [], encoded_picture.decoded
    monkeypatch.setattr(encoded_picture, "decoded", lambda *args: decoded.append(1) or real(*args))
    image = photo(3, red=BOXES["red"], blue=BOXES["blue"])
    with Pipeline.load(grounded("ner"), "onnxruntime-cpu") as pipeline:
        first = pipeline([Tweet(text=TEXT, image=image)])
        assert len(decoded) == 1
        assert pipeline([Tweet(text=TEXT, image=bytes(bytearray(image)))]) == first  # neither searched nor decoded
        assert len(decoded) == 1
        assert pipeline.finder is not None
        assert (pipeline.finder.hits, pipeline.finder.misses) == (1, 1)


def test_a_stream_finds_the_same_as_one_by_one(grounded: Callable[..., Path]) -> None:
    names = list(BOXES)
    pictures = [photo(n, **{name: BOXES[name] for name in names[: n % 4]}) for n in range(12)]
    tweets = [Tweet(text=f"{TEXT} {n}", image=pictures[n % 12], id=n) for n in range(30)]
    path = grounded("ner")
    with Pipeline.load(path, "onnxruntime-cpu", threads=4) as pipeline:
        together = list(pipeline.stream(tweets, batch_size=1))
        assert pipeline.finder is not None
        assert pipeline.finder.misses == 12
    with Pipeline.load(path, "onnxruntime-cpu") as pipeline:
        assert [pipeline([tweet])[0] for tweet in tweets] == together


def test_a_grounder_that_fails_is_no_tweets_fault(grounded: Callable[..., Path], monkeypatch: Any) -> None:
    with Pipeline.load(grounded("ner"), "onnxruntime-cpu") as pipeline:
        tweets = [Tweet(text=TEXT), Tweet(text=TEXT, image=photo()), Tweet(text=TEXT)]

        def fail(*_: object) -> None:
            raise BackendError("the device is lost")

        monkeypatch.setattr("hvpnet_runtime.backends.grounder.Grounder.find_objects", fail)
        for run in (pipeline, lambda given: list(pipeline.stream(given)), lambda given: pipeline(given[1:2])):
            with pytest.raises(BackendError, match="the device is lost"):
                run(tweets)


def test_a_package_that_is_missing_is_named_before_any_tweet(grounded: Callable[..., Path], monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    path = grounded("ner")
    with pytest.raises(MissingExtraError, match=r"pip install 'hvpnet\[grounding\]'"):
        Pipeline.load(path, "onnxruntime-cpu")
    Pipeline.load(path, "onnxruntime-cpu", objects="given").close()


def test_a_substitute_is_searched_in_the_place_of_a_picture_that_cannot_be_read(
    grounded: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "inf.png").write_bytes(photo(1, blue=BOXES["blue"]))
    path, tweet = grounded("ner"), Tweet(text=TEXT, image=tmp_path / "bad.jpg")
    with Pipeline.load(path, "onnxruntime-cpu", on_bad_image="substitute") as pipeline:
        (result,) = pipeline([tweet])
        assert [each.query for each in result.objects or ()] == ["blue"]
        (given,) = pipeline([replace(tweet, boxes=[BOXES["blue"]])])
        assert without_found(given) == without_found(result)
    with Pipeline.load(path, "onnxruntime-cpu") as pipeline, pytest.raises(InputError, match=r"bad\.jpg"):
        pipeline([tweet])


def test_queries_of_the_text_are_head_and_tail(grounded: Callable[..., Path]) -> None:
    path, image = grounded("re", queries="text"), photo(red=BOXES["red"], blue=BOXES["blue"])
    tweet = Tweet(text="Blue met Red in green", image=image, head=(0, 4), tail=(9, 12))
    with Pipeline.load(path, "onnxruntime-cpu") as pipeline:
        (result,) = pipeline([tweet])
        assert [(each.query, each.box) for each in result.objects or ()] == [
            ("red", BOXES["red"]),
            ("blue", BOXES["blue"]),
        ]


# The command


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return path


def test_predict_finds_objects_in_lines_that_give_none(
    grounded: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(photo(red=BOXES["red"]))
    tweets = lines(
        tmp_path / "tweets.jsonl",
        {"text": TEXT, "image": "a.png"},
        {"text": TEXT, "image": "a.png", "objects": []},
        {"text": TEXT, "image": "a.png", "boxes": []},
        {"text": TEXT, "image": "a.png", "boxes": None, "objects": None},
    )
    path = grounded("ner")
    run = ["predict", str(path), "--input", str(tweets), "--backend", "onnxruntime-cpu"]
    assert main(run) == 0
    out, err = capsys.readouterr()
    answers = [json.loads(line) for line in out.splitlines()]
    assert [[each["query"] for each in answer["objects"]] for answer in answers] == [["red"], [], [], ["red"]]
    assert "without objects" not in err
    assert (
        main(["predict", str(path), "--input", str(tweets), "--backend", "onnxruntime-cpu", "--objects", "none"]) == 0
    )
    assert not any("objects" in json.loads(line) for line in capsys.readouterr().out.splitlines())
    one = ["--text", TEXT, "--image", str(tmp_path / "a.png")]
    assert main(["predict", str(path), "--backend", "onnxruntime-cpu", *one]) == 0
    assert "object red  [4, 8, 24, 40]  0.16\n" in capsys.readouterr().out


@pytest.mark.parametrize(("score", "shown"), [(0.000123, "0.00012"), (0.0456, "0.046"), (0.5, "0.5"), (1.0, "1")])
def test_scores_of_objects_are_shown_with_two_digits(score: float, shown: str) -> None:
    result = EntityResult(None, (), ("O",), 0, (FoundObject((1, 2, 3, 4), "red", score),))
    assert _readable(result) == f"no entities\nobject red  [1, 2, 3, 4]  {shown}"


def test_predict_says_once_how_many_came_without(
    ner_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(photo())
    tweets = lines(tmp_path / "tweets.jsonl", *[{"text": TEXT, "image": "a.png"}] * 3, {"text": TEXT})
    run = ["predict", str(ner_bundle), "--input", str(tweets), "--backend", "onnxruntime-cpu"]
    assert main(run) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "without objects" in line]
    expected = (
        "hvpnet: tweets with a picture that came without objects, which are blank to the model: 3; give objects or"
        " boxes, or give the bundle a grounder with hvpnet ground add; or say --objects given"
    )
    assert said == [expected]
    assert main([*run, "--objects", "given"]) == 0
    assert "without objects" not in capsys.readouterr().err
    assert main([*run, "--objects", "found"]) == 1
    assert "has no grounder, which finds objects: give the bundle one with" in capsys.readouterr().err


def test_evaluate_scores_given_found_and_none(
    grounded: Callable[..., Path],
    ner_bundle: Path,
    picture_tweets: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = Path(shutil.copytree(picture_tweets("ner"), tmp_path / "data"))
    run = ["--data", str(data), "--backend", "onnxruntime-cpu", "--json"]
    scores = {}
    path = grounded("ner")
    for objects in ("given", "found", "none"):
        assert main(["evaluate", str(path), *run, "--objects", objects]) == 0
        scores[objects] = json.loads(capsys.readouterr().out)["f1"]
    assert main(["evaluate", str(ner_bundle), *run]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["f1"] == scores["given"]  # its crops are listed
    assert "without objects" not in err
    shutil.rmtree(data / "crops")
    for listed in data.glob("*_objects.json"):
        listed.unlink()
    with caplog.at_level(logging.ERROR):
        assert main(["evaluate", str(ner_bundle), *run]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["f1"] == scores["none"]
        assert "came without objects, which are blank to the model: 24;" in err
        assert main(["evaluate", str(path), *run]) == 0
        assert json.loads(capsys.readouterr().out)["f1"] == scores["found"]
