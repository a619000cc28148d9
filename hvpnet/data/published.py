"""Data sets in the published layouts (Twitter-2015, Twitter-2017, MNRE) and in that of picture-tweets."""

import logging
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import get_args

from hvpnet.data.examples import Example, Split, SplitName
from hvpnet.data.readers import (
    collect_relations,
    read_entity_text,
    read_object_lists,
    read_relation_dictionary,
    read_relation_text,
)
from hvpnet.errors import DataError
from hvpnet_runtime.bundle import PictureSpec, Task
from hvpnet_runtime.errors import PictureError, brief
from hvpnet_runtime.files import open_regular
from hvpnet_runtime.preprocessing.pictures import (
    SUBSTITUTE,
    OnBadImage,
    open_picture,
    or_substitute,
    picture_name,
    resized_size,
)
from hvpnet_runtime.types import Picture

_log = logging.getLogger(__name__)

PUBLISHED_SPLITS: dict[SplitName, str] = {"train": "train", "dev": "val", "test": "test"}
"""Names of splits in published names of files."""

_ANY_PICTURE = PictureSpec()


@dataclass(frozen=True)
class SplitFiles:
    """Where the parts of one split lie.

    Attributes:
        text: the words and tags, or the marked pairs.
        images: the folder of whole pictures; None if there is none, and then the split has no pictures at all.
        crops: the folder of object crops; None if there is none.
        objects: the lists of crops per tweet, `*_dict.pth` or JSON; None if there is none.
        relations: the relation dictionary (.json), or else the training text to collect the relations from; None for
            the entity task.
        expected_objects: where the lists of crops were looked for, if there should be some: the layout has crops, or
            lists for another split.
    """

    text: Path
    images: Path | None = None
    crops: Path | None = None
    objects: Path | None = None
    relations: Path | None = None
    expected_objects: tuple[Path, ...] = field(default=(), compare=False)

    @property
    def task(self) -> Task:
        """The task: "re" if `relations` is given, else "ner"."""
        return "ner" if self.relations is None else "re"


def load_split(
    root: Path | str,
    split: SplitName,
    on_bad_image: OnBadImage = "error",
    *,
    labels: Sequence[str] = (),
    pictures: PictureSpec | None = _ANY_PICTURE,
) -> Split:
    """Reads one split of a data set, its layout recognised by `find_split`.

    Args:
        root: the data set's folder.
        split: train, dev or test.
        on_bad_image: what to do with a whole picture that cannot be used: raise, or take `inf.png` as the published
            loader does; see `or_substitute`. A missing crop is always an error.
        labels: tags that may occur beside the published ones, such as those of a bundle of one's own.
        pictures: limits of the bundle or model that will read the pictures; None if it reads none, and then neither
            are they looked for.

    Raises:
        DataError: a file is missing or malformed; the message names it, and the line where there is one.
        MissingExtraError: the object lists are a `*_dict.pth` and torch is not installed.
    """
    return read_split(find_split(root, split), on_bad_image, labels=labels, pictures=pictures)


def find_split(root: Path | str, split: SplitName) -> SplitFiles:
    """Finds the files of one split in any of the layouts known.

    They are that of picture-tweets (`train.txt`, `dev.txt`, `test.txt`, `images`, `crops`, `train_objects.json`, ...,
    and `relations.json` if the task is relations), those of the published code's `run.py` (root is its `twitter2015`,
    `twitter2017` or `RE_data`), and the published texts alone.

    Raises:
        DataError: the text, or for relations both dictionary and training text, are not there.
    """
    root = Path(root).absolute()
    if split not in get_args(SplitName):
        raise DataError(f"unknown split {brief(split)}: take train, dev or test")
    published, name = PUBLISHED_SPLITS[split], root.name
    text = _first(Path.is_file, *_texts(root, split))
    if text is None:
        looked_for = ", ".join(str(path.relative_to(root)) for path in _texts(root, split))
        raise DataError(f"no {split} split in {root}: looked for {looked_for}")
    twitter_crops, mnre_crops = root.parent / f"{name}_aux_images/{published}/crops", root / f"img_vg/{published}/crops"
    crops = _first(Path.is_dir, root / "crops", twitter_crops, mnre_crops)
    lists = _object_lists(root, split)
    others = [path for other in get_args(SplitName) for path in _object_lists(root, other)]
    return SplitFiles(
        text=text,
        images=_first(Path.is_dir, root / "images", root.parent / f"{name}_images", root / "img_org" / published),
        crops=crops,
        objects=_first(Path.is_file, *lists),
        relations=_find_relations(root, text),
        expected_objects=lists if crops or _first(Path.is_file, *others) else (),
    )


def find_splits(root: Path | str) -> dict[SplitName, SplitFiles]:
    """Finds the files of every split that a data set has; see `find_split`.

    Raises:
        DataError: it has none, or what a split needs is missing.
    """
    root = Path(root).absolute()
    there = [split for split in get_args(SplitName) if _first(Path.is_file, *_texts(root, split))]
    if not there:
        raise DataError(f"{root} is no data set: it has no text of a train, dev or test split")
    return {split: find_split(root, split) for split in there}


def read_split(
    files: SplitFiles,
    on_bad_image: OnBadImage = "error",
    *,
    labels: Sequence[str] = (),
    pictures: PictureSpec | None = _ANY_PICTURE,
    objects: bool = True,
) -> Split:
    """Reads one split from the files given.

    Args:
        files: of the split.
        on_bad_image: as of `load_split`, and so are labels and pictures.
        labels: see above.
        pictures: see above.
        objects: whether crops and their lists are read; without them, no tweet says anything of its objects.

    Raises:
        DataError: as `load_split`.
        MissingExtraError: likewise.
    """
    if pictures is None:
        files, pictures = replace(files, images=None), _ANY_PICTURE
    if not objects:
        files = replace(files, crops=None, objects=None, expected_objects=())
    reader = _Pictures(files, on_bad_image, pictures)
    rows, relations = read_rows(files, labels)
    examples = tuple(reader.attach(example, image) for image, example in rows)
    reader.check_lists()
    split = Split(files.task, examples, relations, has_pictures=files.images is not None)
    if objects and split.has_pictures and not split.counts["crops"]:
        _log.warning("%s is read without crops of objects: %s", files.text, split.summary)
    return split


def read_rows(
    files: SplitFiles, labels: Sequence[str] = ()
) -> tuple[Sequence[tuple[str, Example]], tuple[str, ...] | None]:
    """Names of the images of one split and its examples without pictures, in the order of the text.

    Args:
        files: of the split.
        labels: as of `load_split`.

    Returns:
        These, and the relations by index, which are None for the entity task.

    Raises:
        DataError: the text or the relations are malformed, or there is no tweet.
    """
    relations: tuple[str, ...] | None = None
    rows: Sequence[tuple[str, Example]]
    if files.relations is None:
        rows = read_entity_text(files.text, labels)
    else:
        read = read_relation_dictionary if files.relations.suffix == ".json" else collect_relations
        relations = read(files.relations)
        rows = read_relation_text(files.text, relations)
    if not rows:
        raise DataError(f"{files.text}: holds no tweets")
    return rows, relations


class _Pictures:
    """Finds the pictures of tweets, and checks each file once.

    Raises:
        DataError: there should be lists of crops, and there are none.
    """

    def __init__(self, files: SplitFiles, on_bad_image: OnBadImage, spec: PictureSpec) -> None:
        self._files, self._on_bad_image, self._spec = files, on_bad_image, spec
        if files.images and not files.objects and files.expected_objects:
            looked_for = ", ".join(str(path) for path in files.expected_objects)
            raise DataError(f"{files.text}: its lists of crops are missing, looked for {looked_for}: add one of them")
        self._objects = read_object_lists(files.objects) if files.images and files.objects else {}
        self._unused = set(self._objects)
        self._resolved: dict[str, Path] = {}

    def attach(self, example: Example, image: str) -> Example:
        """Adds the image and its crops; they are listed by image for entities, by row for relations."""
        if self._files.images is None:
            return example
        where = f"{self._files.text}: tweet {example.tweet.id}"
        if image not in self._resolved:
            self._resolved[image] = self._resolve(self._files.images, image, where)
        key = image if self._files.task == "ner" else str(example.tweet.id)
        self._unused.discard(key)
        crops = tuple(self._crop(name, where) for name in self._objects.get(key, ())) if self._files.objects else None
        return replace(example, tweet=replace(example.tweet, image=self._resolved[image], objects=crops))

    def check_lists(self) -> None:
        """Refuse lists of other tweets, and tell which lists are of none.

        Raises:
            DataError: there are lists, and none is of a tweet that was read.
        """
        if not self._unused:
            return
        if len(self._unused) == len(self._objects):
            raise DataError(
                f"{self._files.objects}: has the crops of {len(self._objects)} pictures, and none of them is in "
                f"{self._files.text}: its keys must be names of images (123.jpg), or rows for relations"
            )
        _log.warning(
            "%s: %d of its %d lists of crops fit no tweet of %s, for instance that of %s: check its keys",
            self._files.objects,
            len(self._unused),
            len(self._objects),
            self._files.text,
            min(self._unused),
        )

    def _resolve(self, folder: Path, image: str, where: str) -> Path:
        path = within(folder, image, where)
        if self._on_bad_image == "error":
            if fault := _fault(path, folder):
                raise DataError(
                    f'{where}: its image {brief(image)} {fault}, or take {SUBSTITUTE} with on_bad_image="substitute"'
                )
            return path
        try:
            return or_substitute(path, self._on_bad_image, self._usable)
        except PictureError as error:
            raise DataError(
                f"{where}: its image {brief(image)} in {folder} cannot be opened, and neither can {SUBSTITUTE} beside"
                " it: add one"
            ) from error

    def _usable(self, picture: Picture) -> Path:
        resized_size(open_picture(picture, self._spec).size, self._spec, picture_name(picture))
        return Path(str(picture))

    def _crop(self, name: str, where: str) -> Path:
        if self._files.crops is None:
            raise DataError(f"{where}: its crop {brief(name)} is listed, but there is no folder of crops: add it")
        path = within(self._files.crops, name, where)
        if fault := _fault(path, self._files.crops):
            raise DataError(f"{where}: its crop {brief(name)} {fault}, or remove it from the object lists")
        return path


def within(folder: Path, name: str, where: str) -> Path:
    """A file of a folder or of one within it, by the name that a data set gives it."""
    pure = PurePath(name)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise DataError(f"{where}: the name {brief(name)} leads out of {folder}: name a file in it")
    return folder / pure


def _fault(path: Path, folder: Path) -> str:
    """Why a file of a folder cannot be read, and the cure; empty if it can."""
    try:
        open_regular(path).close()
    except FileNotFoundError:
        return f"is missing from {folder}: add it"
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        return f"in {folder} cannot be opened ({getattr(error, 'strerror', None) or error}): replace it"
    return ""


def _object_lists(root: Path, split: SplitName) -> tuple[Path, ...]:
    published = PUBLISHED_SPLITS[split]
    names = (f"{split}_objects.json", f"{root.name}_{published}_dict.pth", f"txt/mre_{split}_dict.pth")
    return tuple(root / name for name in names)


def _texts(root: Path, split: SplitName) -> tuple[Path, ...]:
    twitter = "valid" if split == "dev" else split
    published = PUBLISHED_SPLITS[split]
    names = dict.fromkeys((split, twitter, published))
    return (*(root / f"{name}.txt" for name in names), root / "txt" / f"ours_{published}.txt")


def _find_relations(root: Path, text: Path) -> Path | None:
    dictionary = _first(Path.is_file, root / "relations.json", root / "ours_rel2id.json")
    if dictionary is not None:
        return dictionary
    with text.open("rb") as lines:
        if not lines.readline().removeprefix(BOM_UTF8).lstrip().startswith(b"{"):
            return None
    training = _first(Path.is_file, *_texts(root, "train"))
    if training is None:
        raise DataError(f"{text} holds relations, but {root} has no relations.json, ours_rel2id.json or training text")
    return training


def _first(exists: Callable[[Path], bool], *paths: Path) -> Path | None:
    return next(filter(exists, paths), None)
