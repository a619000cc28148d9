"""What a data set holds and what it lacks: the counts of every split, and a line for each thing that is missing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from hvpnet.data.examples import SplitName
from hvpnet.data.published import SplitFiles, find_split, read_rows, within
from hvpnet.data.readers import read_object_lists
from hvpnet.errors import DataError
from hvpnet_runtime.bundle import MAX_OBJECTS, PictureSpec
from hvpnet_runtime.errors import InputError, MissingExtraError, PictureError, one_line
from hvpnet_runtime.jsonl import read_rows as read_json_lines
from hvpnet_runtime.preprocessing.pictures import SUBSTITUTE, OnBadImage, open_file, read_file

_LINES = (".jsonl", ".ndjson")
_SPEC = PictureSpec()


@dataclass(frozen=True)
class PartReport:
    """What one split, or one file of JSON lines, holds.

    Attributes:
        tweets: that could be read.
        pictures: files that can be opened, each counted once.
        crops: likewise, of the objects that a model reads.
        replaced: pictures that `substitute` takes inf.png for.
        missing: a sentence for each thing that is needed and not there.
    """

    tweets: int = 0
    pictures: int = 0
    crops: int = 0
    replaced: int = 0
    missing: tuple[str, ...] = ()


def check_data(
    path: Path | str, on_bad_image: OnBadImage = "error", splits: Sequence[SplitName] = get_args(SplitName)
) -> dict[str, PartReport]:
    """Counts what a data set holds. Headers of pictures are read; nothing is decoded.

    Args:
        path: a folder in a layout of `find_split`, a file of JSON lines, or a folder of such files.
        on_bad_image: what is done with whole pictures that cannot be opened: they are missing, or with `substitute`
            replaced by an `inf.png` beside them.
        splits: that should be there; JSON lines have none.

    Returns:
        Reports by split, or by the name of each file of JSON lines.

    Raises:
        DataError: there is nothing of that kind.
    """
    path = Path(path)
    lines = [path] if path.is_file() else sorted(each for each in path.glob("*") if each.suffix in _LINES)
    if path.is_file() and path.suffix not in _LINES:
        raise DataError(f"{path} is no data set: give a folder, or a file of JSON lines ({' or '.join(_LINES)})")
    if not path.exists():
        raise DataError(f"{path} does not exist: give the folder of a data set")
    found: dict[str, PartReport] = {split: _split(path, split, on_bad_image) for split in splits}
    if lines and not any(report.tweets for report in found.values()):
        return {each.name: _json_lines(each, on_bad_image) for each in lines}
    return found


def _split(root: Path, split: SplitName, on_bad_image: OnBadImage) -> PartReport:
    try:
        files = find_split(root, split)
        rows, _ = read_rows(files)
    except DataError as error:
        return PartReport(missing=(one_line(error),))
    if files.images is None:
        published = f"{root.absolute().name}_images beside it, or img_org in it"
        return PartReport(len(rows), missing=(f"no folder of pictures: looked for images in {root}, {published}",))
    missing: list[str] = []
    pictures, replaced = _count(
        _paths(files.images, (image for image, _ in rows), missing), "pictures", missing, on_bad_image
    )
    keys = [image if files.task == "ner" else str(row) for row, (image, _) in enumerate(rows)]
    crops, _ = _count(_crops(files, keys, missing), "crops", missing, "error")
    return PartReport(len(rows), pictures, crops, replaced, tuple(missing))


def _crops(files: SplitFiles, keys: Sequence[str], missing: list[str]) -> list[Path]:
    """Paths of the crops of tweets; where there are lists without a folder, or the other way round, one is missing."""
    if files.objects is None:
        if files.expected_objects:
            root = files.expected_objects[0].parent
            looked_for = ", ".join(str(each.relative_to(root)) for each in files.expected_objects)
            missing.append(f"no lists of crops: looked for {looked_for}")
        return []
    try:
        lists = read_object_lists(files.objects)
    except (DataError, MissingExtraError) as error:
        missing.append(one_line(error))
        return []
    if files.crops is None:
        missing.append(f"no folder of crops, which {files.objects.name} lists: looked for crops, the published"
                       " *_aux_images and img_vg")  # fmt: skip
        return []
    if not lists.keys() & set(keys):
        missing.append(f"{files.objects.name} lists crops for none of these tweets: its keys are names of images, or"
                       " rows for relations")  # fmt: skip
    return _paths(files.crops, (name for key in keys for name in lists.get(key, ())[:MAX_OBJECTS]), missing)


def _paths(folder: Path, names: Iterable[str], missing: list[str]) -> list[Path]:
    """Files of a folder, each once; a name that leads out of it is none."""
    paths: dict[Path, None] = {}
    for name in names:
        try:
            paths[within(folder, name, str(folder))] = None
        except DataError as error:
            missing.append(one_line(error))
    return list(paths)


def _count(paths: Sequence[Path], what: str, missing: list[str], on_bad_image: OnBadImage) -> tuple[int, int]:
    """How many of the files can be opened, and how many are replaced by inf.png; the others are said to be missing."""
    absent = [path for path in paths if not path.exists()]
    unusable = {path: fault for path in paths if path.exists() and (fault := _fault(path))}
    bad = [*absent, *unusable]
    replaced = [path for path in bad if on_bad_image == "substitute" and not _fault(path.with_name(SUBSTITUTE))]
    left = set(bad) - set(replaced)
    for kind in ([path for path in absent if path in left], [path for path in unusable if path in left]):
        if kind:
            first = unusable.get(kind[0]) or f"{kind[0].name} is not in {kind[0].parent}"
            missing.append(f"{len(kind)} of {len(paths)} {what}, the first: {first}")
    return len(paths) - len(bad), len(replaced)


def _fault(path: Path) -> str:
    """Why a picture cannot be used, by its header; empty if it can."""
    try:
        open_file(read_file(path, str(path)), _SPEC, str(path)).close()
    except PictureError as error:
        return one_line(error)
    return ""


def _json_lines(path: Path, on_bad_image: OnBadImage) -> PartReport:
    missing: list[str] = []
    pictures: dict[Path, None] = {}
    crops: dict[Path, None] = {}
    tweets = 0
    for row in read_json_lines(path):
        try:
            tweet = row.tweet()
        except InputError as error:
            missing.append(f"line {row.number} is no tweet: {one_line(error)}")
            continue
        tweets += 1
        pictures |= dict.fromkeys(each for each in (tweet.image,) if isinstance(each, Path))
        crops |= dict.fromkeys(each for each in (tweet.objects or ())[:MAX_OBJECTS] if isinstance(each, Path))
    if not tweets:
        missing.append("no tweets in it")
    opened, replaced = _count(list(pictures), "pictures", missing, on_bad_image)
    cut, _ = _count(list(crops), "crops", missing, "error")
    return PartReport(tweets, opened, cut, replaced, tuple(missing))
