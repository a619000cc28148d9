"""A data set with the objects that a bundle's grounder finds in its pictures, as crops and the published lists of them.

The result is a data set of its own: texts are copied, and pictures linked where the disk can. Until it is complete, its
folder's name ends in `.part`, and a run that was stopped is continued there. What is found in each tweet stands in
`<split>_found.jsonl`, by which a run knows where the one before it stopped. A lock beside the folder keeps other runs
out.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256 as digest
from importlib.metadata import version
from pathlib import Path
from threading import get_ident
from typing import Any, TypeAlias

from hvpnet.data.examples import Example, SplitName
from hvpnet.data.found_objects import Found, find_objects, read_searchable
from hvpnet.data.published import PUBLISHED_SPLITS, SplitFiles, find_splits, read_rows
from hvpnet.errors import DataError, MissingExtraError
from hvpnet_runtime.bundle import PictureSpec, sha256
from hvpnet_runtime.bundle.staging import flush, link_or_copy
from hvpnet_runtime.errors import brief
from hvpnet_runtime.jsonl import json_line
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.pictures import OnBadImage, open_picture
from hvpnet_runtime.types import FoundObject

Told: TypeAlias = Callable[[SplitName, int, int], None]
"""Is told a split, how many of its tweets are done, and how many it has."""

RECORD = "grounding.json"
"""What the objects were found with, and in: where any of it is another, a run is not continued."""

_UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class GroundedSplit:
    """What was found in one split.

    Attributes:
        tweets: searched.
        objects: found, in all tweets.
        crops: files of them; tweets of one picture share theirs.
        without: tweets in whose pictures nothing was found.
        bad_pictures: pictures that could not be used, each counted once; their substitute was searched.
        shared: tweets of entities that show the picture of an earlier tweet, and name something else that was found
            there. Lists of crops are by picture: the first tweet's count.
    """

    tweets: int
    objects: int
    crops: int
    without: int
    bad_pictures: int
    shared: int


def ground_data_set(
    pipeline: Pipeline,
    source: Path,
    out: Path,
    on_bad_image: OnBadImage = "error",
    told: Told = lambda *_: None,
) -> dict[SplitName, GroundedSplit]:
    """Write a data set with the objects found in it.

    Crops are PNG, the very pixels that the runtime cuts. Lists are written as JSON (`test_objects.json`) and, where
    PyTorch is installed, as published (`twitter2015_test_dict.pth`, `txt/mre_test_dict.pth`).

    Args:
        pipeline: loaded with `objects="found"` and the same `on_bad_image`, and pictures decoded in full.
        source: the data set's folder, see `find_split`; crops and lists that it may have are not read.
        out: the new one's; it must not exist.
        on_bad_image: as of `load_split`.
        told: see `Told`.

    Returns:
        What was found, by split.

    Raises:
        DataError: the data set cannot be read, `out` exists, another run is at work on it, an unfinished run is of
            something else, or the folder of unfinished runs is no run's.
        MissingExtraError: filelock is not installed.
        BackendError: the grounder failed.
        OSError: the disk refuses.
    """
    work = out.with_name(f"{out.name}.part")
    _refuse(out, work)
    splits = [
        _Grounding(pipeline, source, files, work, split, on_bad_image) for split, files in find_splits(source).items()
    ]
    with _held(out, work):
        _refuse(out, work)  # again: another run may have finished meanwhile
        _begin(work, _identity(pipeline, source, splits, on_bad_image))
        reports = {each.split: each.run(told) for each in splits}
        shutil.rmtree(work / _UNFINISHED)
        for path in work.rglob("*"):
            if path.is_file():
                flush(path)
        work.rename(out)
    return reports


def _refuse(out: Path, work: Path) -> None:
    """To write over a data set, or into a folder that no run has begun."""
    if out.exists():
        raise DataError(f"{out} exists: remove it or choose another")
    if not work.exists() or (work / RECORD).is_file():
        return
    if not work.is_dir() or any(path.name != _UNFINISHED for path in work.iterdir()):
        raise DataError(
            f"{work} is no unfinished run, for it has no {RECORD}: move it away or choose another than {out}"
        )


@contextmanager
def _held(out: Path, work: Path) -> Iterator[None]:
    """Keep other runs away; the lock's file stays beside an unfinished run, so that all runs have the same."""
    try:
        from filelock import FileLock, Timeout
    except ImportError as error:
        raise MissingExtraError("filelock", "grounding", "writing a data set of found objects") from error
    lock = work.with_name(f"{work.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, blocking=False):
            yield
    except Timeout as error:
        raise DataError(f"another run is at work on {out}: wait for it") from error
    lock.unlink(missing_ok=True)  # of no more use: whoever still waits for it finds that `out` exists


def _identity(pipeline: Pipeline, source: Path, splits: list["_Grounding"], on_bad_image: OnBadImage) -> dict[str, Any]:
    """What the result depends on, as JSON types by name."""
    bundle, grounder = pipeline.bundle, pipeline.bundle.grounder
    return {
        "hvpnet": version("hvpnet"),
        "grounder": {name: value for name, value in asdict(grounder).items() if name != "parity"},
        "files": {name: bundle.manifest.files[name].sha256 for name in grounder.required_files()},
        "backend": pipeline.backend.name,
        "precision": pipeline.backend.precision,
        "data": str(source.absolute()),
        "texts": {each.split: each.texts() for each in splits},
        "pictures": {each.split: each.pictures() for each in splits},
        "on_bad_image": on_bad_image,
    }


def _begin(work: Path, identity: Mapping[str, Any]) -> None:
    """Make the folder of a run, or hold the one that is there against it."""
    (work / _UNFINISHED).mkdir(parents=True, exist_ok=True)
    record = work / RECORD
    if not record.exists():
        _write(work, record, json_line(identity).encode())
    try:
        before = json.loads(record.read_bytes())
    except (ValueError, RecursionError):
        before = None
    if not isinstance(before, dict):
        raise DataError(f"{record} is damaged: remove its folder to begin anew")
    now = json.loads(json_line(identity))
    changed = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    if changed:
        raise DataError(
            f"{work} was begun with another {' and '.join(changed)}: restore that to go on, or remove the folder to"
            " begin anew"
        )


class _Grounding:
    """One split on its way: what was found in it so far is in the folder."""

    def __init__(
        self,
        pipeline: Pipeline,
        source: Path,
        files: SplitFiles,
        work: Path,
        split: SplitName,
        on_bad_image: OnBadImage,
    ) -> None:
        self.split = split
        self._pipeline, self._files, self._work = pipeline, files, work
        self._root = root = source.absolute()
        self._tweets = read_searchable(files, pipeline, on_bad_image).examples
        self._names = [image for image, _ in read_rows(files, pipeline.bundle.labels)[0]]
        self._first = {name: row for row, name in reversed(list(enumerate(self._names)))}
        images = files.images or root
        self._images, self._spec = images, pipeline.bundle.pictures or PictureSpec()
        inside = images.relative_to(root) if images.is_relative_to(root) else Path("images")
        published = PUBLISHED_SPLITS[split]
        self._new_images = work / inside
        self._crops = work / (f"img_vg/{published}/crops" if inside.parts[0] == "img_org" else "crops")
        self._texts = [path.relative_to(root) for path in (files.text, files.relations) if path is not None]
        is_mnre = files.text.parent != root
        self._torch = work / (f"txt/mre_{split}_dict.pth" if is_mnre else f"{root.name}_{published}_dict.pth")

    def texts(self) -> dict[str, str]:
        """Digests of what is read beside the pictures, by name."""
        return {path.as_posix(): sha256(self._root / path) for path in self._texts}

    def pictures(self) -> str:
        """A digest of the paths, sizes and times of all pictures, which are not read for it."""
        lines = digest()
        for path in dict.fromkeys(path for pair in self._paths() for path in pair):
            facts = path.stat() if path.is_file() else None
            lines.update(json_line([str(path), facts and [facts.st_size, facts.st_mtime_ns]]).encode())
        return lines.hexdigest()

    def run(self, told: Told) -> GroundedSplit:
        """Find, cut and list; tweets that were searched before are not searched again."""
        self._crops.mkdir(parents=True, exist_ok=True)
        journal = self._work / f"{self.split}_found.jsonl"
        found = _resume(journal)
        told(self.split, len(found), len(self._tweets))
        with journal.open("ab") as lines:
            for each in find_objects(self._pipeline, self._files, self._tweets[len(found) :], self._cut):
                found.append(each)
                line = json_line({"row": len(found) - 1, "objects": [one.to_dict() for one in each]})
                lines.write(f"{line}\n".encode())
                lines.flush()
                told(self.split, len(found), len(self._tweets))
        self._copy()
        lists = self._lists(found)
        self._write_lists(lists)
        shared = self._first if self._files.task == "ner" else {}
        return GroundedSplit(
            tweets=len(found),
            objects=sum(map(len, found)),
            crops=len({name for names in lists.values() for name in names}),
            without=sum(not each for each in found),
            bad_pictures=len({named for named, read in self._paths() if named != read}),
            shared=sum(each != found[shared.get(name, row)] for row, (name, each) in self._rows(found)),
        )

    def _rows(self, found: list[Found]) -> list[tuple[int, tuple[str, Found]]]:
        return list(enumerate(zip(self._names, found, strict=True)))

    def _by_name(self) -> list[tuple[str, Example]]:
        return list(zip(self._names, self._tweets, strict=True))

    def _paths(self) -> list[tuple[Path, Path]]:
        """The picture that each tweet names, and the one that is read for it."""
        return [(self._images / name, _picture(example)) for name, example in self._by_name()]

    def _is_listed(self, row: int) -> bool:
        return self._files.task == "re" or self._first[self._names[row]] == row

    def _crop_name(self, example: Example, found: FoundObject) -> str:
        edges = "-".join(map(str, found.box))
        return f"{_picture(example).relative_to(self._images).as_posix()}.{edges}.png"

    def _cut(self, example: Example, found: Found) -> None:
        """Write the crops of a tweet."""
        if not found or not self._is_listed(example.tweet.id):
            return
        image = open_picture(_picture(example), self._spec)
        for each in found:
            target = self._crops / self._crop_name(example, each)
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._work / _UNFINISHED / f"{get_ident()}.png"
            crop = image.crop(each.box)
            crop.info = {}  # colour profiles and transparency, which would be written, are read by nobody here
            crop.save(unfinished)
            unfinished.replace(target)

    def _lists(self, found: list[Found]) -> dict[str, list[str]]:
        """Crops by the name of the image, or by row for relations."""
        return {
            name if self._files.task == "ner" else str(row): [self._crop_name(self._tweets[row], one) for one in each]
            for row, (name, each) in self._rows(found)
            if self._is_listed(row)
        }

    def _write_lists(self, lists: dict[str, list[str]]) -> None:
        content = json.dumps(lists, ensure_ascii=False, indent=1)
        _write(self._work, self._work / f"{self.split}_objects.json", content.encode())
        try:
            import torch
        except ImportError:
            return
        published = {int(key): names for key, names in lists.items()} if self._files.task == "re" else lists
        torch.save(published, self._torch)

    def _copy(self) -> None:
        """Texts, and the pictures that tweets name or are read for them."""
        for text in self._texts:
            _write(self._work, self._work / text, (self._root / text).read_bytes())
        for pair in self._paths():
            for path in pair:
                target = self._new_images / path.relative_to(self._images)
                if not target.exists() and path.is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    unfinished = self._work / _UNFINISHED / "picture"
                    unfinished.unlink(missing_ok=True)
                    link_or_copy(path.resolve(), unfinished)
                    unfinished.replace(target)


def _picture(example: Example) -> Path:
    """The picture that is read for a tweet, in the folder of the old data set."""
    return Path(str(example.tweet.image))


def _resume(journal: Path) -> list[Found]:
    """What an earlier run found, tweet by tweet; a line that it did not finish is cut off.

    Raises:
        DataError: no run wrote this.
    """
    content = journal.read_bytes() if journal.exists() else b""
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(journal, end)
    try:
        rows = [json.loads(line)["objects"] for line in content[:end].split(b"\n")[:-1]]
        return [tuple(FoundObject(tuple(each["box"]), each["query"], each["score"]) for each in row) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{journal} cannot be continued ({brief(str(error))}): remove its folder") from error


def _write(work: Path, target: Path, content: bytes) -> None:
    """A file that is there whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = work / _UNFINISHED / "file"
    unfinished.write_bytes(content)
    unfinished.replace(target)
