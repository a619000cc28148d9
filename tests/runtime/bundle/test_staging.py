"""Folders that replace others: an interruption leaves one of the two, whole, and nothing beside it."""

import dataclasses
import os
import stat
import sys
from pathlib import Path

import pytest

from hvpnet_runtime.bundle import Bundle, staging
from hvpnet_runtime.bundle.rewriting import rewrite_manifest
from hvpnet_runtime.bundle.staging import exchange, link_files, staged


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One that is there already."""
    folder = tmp_path / "engines"
    folder.mkdir()
    (folder / "name").write_text("old")
    return folder


@pytest.fixture
def in_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which no two paths change places."""
    monkeypatch.setattr(staging, "exchange", lambda *_: False)


def replace(folder: Path) -> None:
    with staged(folder, replace=True) as stage:
        (stage / "name").write_text("new")


def left(folder: Path) -> str:
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert [path.name for path in folder.iterdir()] == ["name"]
    return (folder / "name").read_text()


def test_the_new_folder_takes_the_place(folder: Path) -> None:
    replace(folder)
    assert left(folder) == "new"


@pytest.mark.usefixtures("in_two_steps")
def test_the_new_folder_takes_the_place_in_two_steps(folder: Path) -> None:
    replace(folder)
    assert left(folder) == "new"


def test_two_folders_change_places(folder: Path) -> None:
    other = folder.with_name("other")
    other.mkdir()
    before = (folder.stat().st_ino, other.stat().st_ino)
    changed = exchange(folder, other)
    assert (folder.stat().st_ino, other.stat().st_ino) == (before[::-1] if changed else before)
    assert not exchange(folder, folder.with_name("nothing"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets two paths change places")
def test_there_is_no_moment_without_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of the two steps between which a killed process would leave none is taken."""
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("a folder was renamed"))
    replace(folder)
    assert left(folder) == "new"


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755])
def test_the_new_folder_has_the_mode_of_the_old_one(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    replace(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == mode


def test_what_is_to_be_written_is_not_linked(folder: Path, tmp_path: Path) -> None:
    """Neither a file of that name, nor a link to a folder outside in which it would lie."""
    outside, stage = tmp_path / "outside", tmp_path / "stage"
    for each in (outside, stage, folder / "onnx"):
        each.mkdir()
    (folder / "onnx/fp16").symlink_to(outside)
    (folder / "link").symlink_to(outside)
    (folder / "file").touch()
    link_files(folder, stage, {"name", "onnx/fp16/graph"})
    assert {path.relative_to(stage).as_posix() for path in stage.rglob("*")} == {"onnx", "link", "file"}
    assert (stage / "link").is_symlink()
    assert (stage / "file").samefile(folder / "file")


def test_a_folder_that_does_not_give_way(folder: Path) -> None:
    with pytest.raises(FileExistsError, match="engines exists"), staged(folder):
        pass
    assert left(folder) == "old"


@pytest.mark.usefixtures("in_two_steps")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize(
    ("rename", "happened", "expected"),
    [(1, False, "old"), (1, True, "old"), (2, False, "old"), (2, True, "new")],
    ids=["before the first", "between", "before the second", "after both"],
)
def test_interrupted_at_a_rename(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    rename: int,
    happened: bool,
    expected: str,
) -> None:
    renamed, original = [], Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        renamed.append(target)
        if len(renamed) != rename:
            return original(path, target)
        if happened:
            original(path, target)
        raise error

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(error):
        replace(folder)
    assert left(folder) == expected


@pytest.mark.usefixtures("in_two_steps")
def test_what_cannot_be_put_back_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.rename

    def fails_after_the_first(path: Path, target: Path) -> Path:
        if path != folder:
            raise OSError("the disk is gone")
        return original(path, target)

    monkeypatch.setattr(Path, "rename", fails_after_the_first)
    with pytest.raises(OSError, match="the disk is gone"):
        replace(folder)
    (kept,) = folder.parent.glob("*.replaced")
    assert (kept / "name").read_text() == "old"


def test_a_folder_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "folder"

    def write() -> None:
        with staged(folder) as stage:
            (stage / "mine").touch()
            folder.mkdir()
            (folder / "theirs").touch()

    with pytest.raises(OSError, match="not empty"):
        write()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["folder", "folder/theirs"]


def test_another_manifest_changes_one_file(ner_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir(0o700)
    link_files(ner_bundle, folder, {"manifest.json"})
    folder.chmod(0o700)
    content = (ner_bundle / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.json").chmod(0o640)
    before = {path: path.stat().st_ino for path in folder.rglob("*")}
    manifest = Bundle.load(folder).manifest
    other = dataclasses.replace(manifest, produced_by={"somebody": "1"})

    def refuse(*_: object) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(OSError, match="the disk is gone"):
            rewrite_manifest(folder, other)
    assert (folder / "manifest.json").read_bytes() == content
    assert {path: path.stat().st_ino for path in folder.rglob("*")} == before
    rewrite_manifest(folder, other)
    assert Bundle.load(folder).manifest == other
    after = {path: path.stat().st_ino for path in folder.rglob("*")}
    assert after.keys() == before.keys()
    assert {path.name for path in after if after[path] != before[path]} == {"manifest.json"}
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "manifest.json")] == [0o700, 0o640]
