"""Folders that replace others: an interruption leaves one of the two, whole, and nothing beside it."""

from pathlib import Path

import pytest

from hvpnet_runtime.bundle.staging import staged


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One that is there already."""
    folder = tmp_path / "engines"
    folder.mkdir()
    (folder / "name").write_text("old")
    return folder


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


def test_a_folder_that_does_not_give_way(folder: Path) -> None:
    with pytest.raises(FileExistsError, match="engines exists"), staged(folder):
        pass
    assert left(folder) == "old"


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
