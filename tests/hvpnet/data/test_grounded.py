"""A data set with found objects: crops, lists and answers are those of a pipeline that finds the objects itself."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coloured_data import BOXES, draw, write_mnre, write_twitter
from filelock import FileLock
from json_keys import assert_snake_case
from PIL import Image
from tiny_grounder import COLOURS, add_grounder

from hvpnet.cli import main
from hvpnet.data import find_split, load_split, read_split
from hvpnet.data.grounded import ground_data_set
from hvpnet.data.readers import read_object_lists
from hvpnet.errors import DataError, MissingExtraError
from hvpnet_runtime import Pipeline
from hvpnet_runtime.types import Result

pytestmark = pytest.mark.heavy


@pytest.fixture
def grounded(bundle_of: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    def bundle(task: str = "ner", **settings: Any) -> Path:
        return add_grounder(Path(shutil.copytree(bundle_of(task), tmp_path / f"bundle-{task}")), **settings)

    return bundle


def ground(bundle: Path, data: Path, out: Path, **settings: Any) -> dict[Any, Any]:
    bad = settings.get("on_bad_image", "error")
    with Pipeline.load(bundle, "onnxruntime-cpu", objects="found", on_bad_image=bad) as pipeline:
        return ground_data_set(pipeline, data, out, **settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(picture: Any) -> np.ndarray:
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))


def answers(bundle: Path, data: Path, split: Any, objects: Any) -> list[Result]:
    files = find_split(data, split)
    tweets = [each.tweet for each in read_split(files, objects=objects == "given").examples]
    with Pipeline.load(bundle, "onnxruntime-cpu", objects=objects) as pipeline:
        if pipeline.finder is not None:
            pipeline.finder.batch = 1
        return [replace(result, objects=None) for result in pipeline(tweets)]


@pytest.mark.parametrize(("task", "write"), [("ner", write_twitter), ("re", write_mnre)])
def test_crops_and_answers_are_those_of_a_pipeline_that_finds_them(
    grounded: Callable[..., Path], tmp_path: Path, task: str, write: Callable[[Path], Path]
) -> None:
    settings = {"queries": "text"} if task == "re" else {}
    bundle, data, out = grounded(task, **settings), write(tmp_path / "twitter2015"), tmp_path / "new"
    before = contents(data)
    reports = ground(bundle, data, out)
    assert contents(data) == before
    for split, report in reports.items():
        old = read_split(find_split(data, split), objects=False)
        with Pipeline.load(bundle, "onnxruntime-cpu") as pipeline:
            expected = [result.objects or () for result in pipeline([each.tweet for each in old.examples])]
        new = load_split(out, split)
        assert [each.tweet.words for each in new.examples] == [each.tweet.words for each in old.examples]
        for example, was, found in zip(new.examples, old.examples, expected, strict=True):
            assert isinstance(example.tweet.objects, tuple)
            whole = pixels(was.tweet.image)
            np.testing.assert_array_equal(pixels(example.tweet.image), whole)
            assert len(example.tweet.objects) == len(found)
            for crop, each in zip(example.tweet.objects, found, strict=True):
                x0, y0, x1, y1 = each.box
                np.testing.assert_array_equal(pixels(crop), whole[y0:y1, x0:x1])
        assert report.tweets == len(expected)
        assert report.objects == sum(map(len, expected)) > 0
        assert report.without == sum(not each for each in expected)
        assert report.crops == new.counts["crops"]
        assert (report.bad_pictures, report.shared) == (0, 0)
        assert answers(bundle, out, split, "given") == answers(bundle, data, split, "found")


def test_lists_have_the_published_names_in_both_forms(grounded: Callable[..., Path], tmp_path: Path) -> None:
    ground(grounded(), write_twitter(tmp_path / "twitter2015"), tmp_path / "new")
    names = ["red", "blue", "green"]
    listed = {
        f"{picture}.jpg": [f"{picture}.jpg.{'-'.join(map(str, BOXES[name]))}.png" for name in names if name in colours]
        for picture, colours in {"3": "", "1": "red"}.items()
    }
    for name in ("dev_objects.json", "twitter2015_val_dict.pth"):
        lists = read_object_lists(tmp_path / "new" / name)
        assert {key: list(crops) for key, crops in lists.items()} == listed
    assert read_object_lists(tmp_path / "new/train_objects.json") == read_object_lists(
        tmp_path / "new/twitter2015_train_dict.pth"
    )


def test_published_lists_alone_are_read(grounded: Callable[..., Path], tmp_path: Path) -> None:
    """Lists of relations are by row, and so are their keys in the published files."""
    out = tmp_path / "elsewhere" / "RE_data"
    ground(grounded("re", queries="text"), write_mnre(tmp_path / "RE_data"), out)
    expected = [each.tweet for each in load_split(out, "dev").examples]
    assert read_object_lists(out / "dev_objects.json") == read_object_lists(out / "txt/mre_dev_dict.pth")
    for path in out.glob("*_objects.json"):
        path.unlink()
    assert [each.tweet for each in load_split(out, "dev").examples] == expected
    assert all(str(crop).startswith(str(out / "img_vg/val/crops/a.jpg.")) for crop in expected[0].objects or ())


class Killed(BaseException):
    """Ends a run as a signal does."""


@pytest.mark.parametrize("after", [0, 1, 5, 8])
def test_a_stopped_run_is_continued_and_ends_the_same(
    grounded: Callable[..., Path], tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, data = grounded(), write_twitter(tmp_path / "twitter2015")
    ground(bundle, data, tmp_path / "whole")
    calls: Iterator[int] = iter(range(100))

    def stop(*_: Any) -> None:
        if next(calls) == after:
            raise Killed

    with pytest.raises(Killed):
        ground(bundle, data, tmp_path / "new", told=stop)
    assert not (tmp_path / "new").exists()
    journals = {path: path.read_bytes() for path in (tmp_path / "new.part").glob("*_found.jsonl")}
    done = sum(content.count(b"\n") for content in journals.values())
    for path, content in journals.items():
        path.write_bytes(content + b'{"row": 99, "obj')  # a line that was being written
    searched: list[int] = []
    real = Pipeline.prepare
    monkeypatch.setattr(Pipeline, "prepare", lambda self, tweet: searched.append(1) or real(self, tweet))
    reports = ground(bundle, data, tmp_path / "new")
    assert done + len(searched) == 9
    assert sum(report.tweets for report in reports.values()) == 9
    assert contents(tmp_path / "new") == contents(tmp_path / "whole")
    assert not (tmp_path / "new.part").exists()


def stop(*_: Any) -> None:
    raise Killed


def test_a_run_of_something_else_is_not_continued(
    grounded: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, data, out = grounded(), write_twitter(tmp_path / "twitter2015"), tmp_path / "new"
    with pytest.raises(Killed):
        ground(bundle, data, out, told=stop)
    before = contents(tmp_path / "new.part")

    def refused(another: str, data: Path = data, **settings: Any) -> None:
        with pytest.raises(DataError, match=rf"new\.part was begun with another {another}: restore that to go on"):
            ground(bundle, data, out, **settings)
        assert contents(tmp_path / "new.part") == before

    red, green = (tmp_path / f"twitter2015_images/{name}.jpg" for name in "12")
    old = red.stat()
    os.utime(red, ns=(old.st_atime_ns, old.st_mtime_ns + 1))
    refused("pictures")
    os.utime(red, ns=(old.st_atime_ns, old.st_mtime_ns))
    content, times = green.read_bytes(), green.stat()
    green.write_bytes(content + b"\0")
    os.utime(green, ns=(times.st_atime_ns, times.st_mtime_ns))
    refused("pictures")
    green.write_bytes(content)
    os.utime(green, ns=(times.st_atime_ns, times.st_mtime_ns))
    shutil.copytree(tmp_path / "twitter2015_images", tmp_path / "elsewhere/twitter2015_images")
    refused("data and pictures", Path(shutil.copytree(data, tmp_path / "elsewhere/twitter2015")))
    refused("on_bad_image", on_bad_image="substitute")
    with monkeypatch.context() as newer:
        newer.setattr("hvpnet.data.grounded.version", lambda _: "9.0")
        refused("hvpnet")
    text = (data / "test.txt").read_text("utf-8")
    (data / "test.txt").write_text(text.replace("Madison", "Boston"), "utf-8")
    refused("texts")
    (data / "test.txt").write_text(text, "utf-8")
    ground(bundle, data, out)  # all is as it was
    record = json.loads((out / "grounding.json").read_text("utf-8"))
    assert (record["data"], record["hvpnet"]) == (str(data), version("hvpnet"))
    assert record["texts"]["test"] == {"test.txt": hashlib.sha256(text.encode()).hexdigest()}
    with pytest.raises(DataError, match="new exists: remove it or choose another"):
        ground(bundle, data, out)


def test_a_run_with_another_threshold_is_not_continued(grounded: Callable[..., Path], tmp_path: Path) -> None:
    bundle, data = grounded(), write_twitter(tmp_path / "twitter2015")
    with pytest.raises(Killed):
        ground(bundle, data, tmp_path / "new", told=stop)
    add_grounder(bundle, threshold=0.2)
    with pytest.raises(DataError, match=r"new\.part was begun with another grounder"):
        ground(bundle, data, tmp_path / "new")
    for damaged in ("[]", "{", ""):
        (tmp_path / "new.part/grounding.json").write_text(damaged, "utf-8")
        with pytest.raises(DataError, match=r"grounding\.json is damaged: remove its folder"):
            ground(bundle, data, tmp_path / "new")


def test_a_folder_that_no_run_has_begun_is_left_alone(grounded: Callable[..., Path], tmp_path: Path) -> None:
    bundle, data, part = grounded(), write_twitter(tmp_path / "twitter2015"), tmp_path / "new.part"
    part.mkdir()
    (part / "train_found.jsonl").write_text("precious", "utf-8")
    with pytest.raises(DataError, match=r"new\.part is no unfinished run, for it has no grounding\.json: move it away"):
        ground(bundle, data, tmp_path / "new")
    assert contents(part) == {"train_found.jsonl": b"precious"}
    shutil.rmtree(part)
    part.write_text("precious", "utf-8")
    with pytest.raises(DataError, match="is no unfinished run"):
        ground(bundle, data, tmp_path / "new")
    assert part.read_text("utf-8") == "precious"
    part.unlink()
    (part / ".unfinished").mkdir(parents=True)  # of a run that was killed before it wrote its record
    ground(bundle, data, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.glob("new*")) == ["new"]


def test_one_run_at_a_time_is_at_work(grounded: Callable[..., Path], tmp_path: Path) -> None:
    bundle, data, out = grounded(), write_twitter(tmp_path / "twitter2015"), tmp_path / "new"
    refusals = []

    def meanwhile(*_: Any) -> None:
        if not refusals:
            with pytest.raises(DataError, match=r"another run is at work on .*new: wait for it") as refusal:
                ground(bundle, data, out)
            refusals.append(refusal)

    reports = ground(bundle, data, out, told=meanwhile)
    assert len(refusals) == 1
    assert sum(report.tweets for report in reports.values()) == 9
    assert sorted(path.name for path in tmp_path.glob("new*")) == ["new"]


def test_a_data_set_that_another_run_finishes_meanwhile_is_not_touched(
    grounded: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, data, out = grounded(), write_twitter(tmp_path / "twitter2015"), tmp_path / "new"
    acquire = FileLock.acquire

    def finished_meanwhile(*arguments: Any, **options: Any) -> Any:
        out.mkdir()
        return acquire(*arguments, **options)

    monkeypatch.setattr(FileLock, "acquire", finished_meanwhile)
    with pytest.raises(DataError, match="new exists: remove it or choose another"):
        ground(bundle, data, out)
    assert (contents(out), (tmp_path / "new.part").exists()) == ({}, False)


def test_the_package_of_the_lock_is_named(
    grounded: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(MissingExtraError, match=r"needs the package filelock: pip install 'hvpnet\[grounding\]'"):
        ground(grounded(), write_twitter(tmp_path / "twitter2015"), tmp_path / "new")


def test_a_journal_that_was_edited_is_no_journal(grounded: Callable[..., Path], tmp_path: Path) -> None:
    bundle, data = grounded(), write_twitter(tmp_path / "twitter2015")
    with pytest.raises(Killed):
        ground(bundle, data, tmp_path / "new", told=stop)
    for line in ("[]", "red", '{"objects": [{"box": 7}]}'):
        (tmp_path / "new.part/train_found.jsonl").write_text(f"{line}\n", "utf-8")
        with pytest.raises(DataError, match=r"train_found\.jsonl cannot be continued .*: remove its folder"):
            ground(bundle, data, tmp_path / "new")


def test_bad_pictures_are_an_error_or_replaced_and_counted(grounded: Callable[..., Path], tmp_path: Path) -> None:
    bundle, data = grounded(), write_twitter(tmp_path / "twitter2015")
    images = tmp_path / "twitter2015_images"
    (images / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"train\.txt: tweet 1: picture .*1\.jpg"):
        ground(bundle, data, tmp_path / "new")
    shutil.rmtree(tmp_path / "new.part")
    (images / "2.jpg").unlink()
    draw(images / "inf.png", 9, "green")
    reports = ground(bundle, data, tmp_path / "new", on_bad_image="substitute")
    assert {split: report.bad_pictures for split, report in reports.items()} == {"train": 2, "dev": 1, "test": 2}
    assert read_object_lists(tmp_path / "new/test_objects.json") == dict.fromkeys(
        ("1.jpg", "2.jpg"), ("inf.png.0-52-10-64.png",)
    )
    split = load_split(tmp_path / "new", "test", "substitute")
    assert [each.tweet.image for each in split.examples] == [tmp_path / "new/images/inf.png"] * 3


def test_crops_have_pixels_and_nothing_else(grounded: Callable[..., Path], tmp_path: Path) -> None:
    """Profiles and transparent colours of a picture change no pixel of it, and are not in its crops."""
    data = write_twitter(tmp_path / "twitter2015")
    path = tmp_path / "twitter2015_images/1.jpg"
    with Image.open(path) as image:
        image.save(path, "png", icc_profile=b"profile", transparency=(255, 0, 0))
    ground(grounded(), data, tmp_path / "new")
    with Image.open(tmp_path / "new/crops/1.jpg.4-8-24-40.png") as crop:
        assert (crop.mode, crop.info) == ("RGB", {})
        assert (np.asarray(crop) == COLOURS["red"]).all()


def test_words_without_a_piece_name_nothing(grounded: Callable[..., Path], tmp_path: Path) -> None:
    data = write_twitter(tmp_path / "twitter2015")
    (data / "test.txt").write_text("IMGID:1\n\u200b\tO\n", "utf-8")
    ground(grounded(), data, tmp_path / "new")
    assert len(read_object_lists(tmp_path / "new/test_objects.json")["1.jpg"]) == 1


def test_tweets_that_name_other_objects_of_one_picture_are_counted(
    grounded: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_twitter(tmp_path / "twitter2015")
    for split in ("train", "valid"):
        (data / f"{split}.txt").unlink()
    tweets = ["IMGID:2\nA\tO\nred\tO\ncar\tO\n", "IMGID:2\nA\tO\nblue\tO\ncar\tO\n"]
    (data / "test.txt").write_text("\n".join(tweets), "utf-8")
    out = tmp_path / "new"
    run = ["ground", str(grounded(queries="text")), str(data), "--out", str(out), "--backend", "onnxruntime-cpu"]
    assert main([*run, "--json"]) == 0
    shown, err = capsys.readouterr()
    assert_snake_case(json.loads(shown))
    report = json.loads(shown)["splits"]["test"]
    assert (report["objects"], report["crops"], report["shared"]) == (2, 1, 1)
    assert "name other objects in it: 1; lists are by picture" in err
    assert "test: 2 of 2 tweets searched" in err
    assert read_object_lists(out / "test_objects.json") == {"2.jpg": ("2.jpg.4-8-24-40.png",)}


def test_the_command(grounded: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The new data set, with the objects given, has the scores of the old one, whose objects are found."""
    bundle, data, out = grounded(), write_twitter(tmp_path / "twitter2015"), tmp_path / "new"
    run = ["ground", str(bundle), str(data), "--out", str(out), "--backend", "onnxruntime-cpu"]
    assert main(run) == 0
    shown = capsys.readouterr().out
    assert [line.split()[:3] for line in shown.splitlines()[-3:]] == [
        ["train", "4", "9"],
        ["dev", "2", "1"],
        ["test", "3", "5"],
    ]
    scores = []
    for folder, objects in ((out, "given"), (data, "found")):
        evaluate = ["evaluate", str(bundle), "--data", str(folder), "--backend", "onnxruntime-cpu", "--json"]
        assert main([*evaluate, "--objects", objects]) == 0
        scores.append(json.loads(capsys.readouterr().out)["per_type"])
    assert scores[0] == scores[1]
    assert main(run) == 1
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere", "is no data set: it has no text"),
        ("mnre", "is for task re, the bundle is for ner"),
        ("bare", "no pictures"),
    ],
)
def test_errors_are_one_line(
    grounded: Callable[..., Path], tmp_path: Path, data: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mnre(tmp_path / "mnre")
    shutil.rmtree(write_twitter(tmp_path / "bare").with_name("bare_images"))
    run = ["ground", str(grounded()), str(tmp_path / data), "--out", str(tmp_path / "new")]
    assert main([*run, "--backend", "onnxruntime-cpu"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert message in line


def test_a_bundle_without_a_grounder(ner_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_twitter(tmp_path / "twitter2015")
    assert main(["ground", str(ner_bundle), str(data), "--out", str(tmp_path / "new")]) == 1
    assert "has no grounder, which finds objects" in capsys.readouterr().err
    assert main(["ground", "tune", str(ner_bundle), str(data), "--backend", "onnxruntime-cpu"]) == 1
    assert "has no grounder, which finds objects" in capsys.readouterr().err
