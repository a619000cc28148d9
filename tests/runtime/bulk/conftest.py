"""A corpus in every form of input, Ray started once, and the command as a process that can be killed."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hvpnet.data import Sizes, load_split, write_picture_tweets
from hvpnet_runtime import Pipeline, Tweet
from hvpnet_runtime.bulk import Local
from hvpnet_runtime.bulk.on_ray import OnRay
from hvpnet_runtime.bulk.on_ray.cluster import connect
from hvpnet_runtime.ray_processes import prepare_local_ray


@dataclass(frozen=True)
class Corpus:
    """Tweets, and where they may be written as files: picture paths are relative to this folder."""

    folder: Path
    tweets: tuple[Tweet, ...]

    def rows(self) -> list[dict[str, Any]]:
        """The tweets as JSON types."""
        return [self._row(tweet) for tweet in self.tweets]

    def write_lines(self, name: str) -> Path:
        """As JSON lines."""
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in self.rows()))
        return path

    def write_parquet(self, name: str, row_group: int = 17) -> Path:
        """As Parquet of small row groups; the whole pictures are bytes, the crops paths."""
        rows = self.rows()
        for row in rows:
            row["image"] = (self.folder / row["image"]).read_bytes()
        span, strings = pa.list_(pa.int32()), pa.list_(pa.string())
        types = {"id": pa.int64(), "words": strings, "image": pa.binary(), "objects": strings}
        schema = pa.schema(types | ({"head": span, "tail": span} if "head" in rows[0] else {}))
        pq.write_table(pa.Table.from_pylist(rows, schema), self.folder / name, row_group_size=row_group)
        return self.folder / name

    def answers(self, bundle: Path, *, window: bool = False) -> list[dict[str, Any]]:
        """What `Pipeline` says."""
        with Pipeline.load(bundle, window=window) as pipeline:
            return [as_json(result.to_dict()) for result in pipeline(self.tweets)]

    def _row(self, tweet: Tweet) -> dict[str, Any]:
        pair = {} if tweet.head is None else {"head": list(tweet.head), "tail": list(tweet.tail or ())}
        return {
            "id": tweet.id,
            "words": list(tweet.words or ()),
            "image": os.path.relpath(str(tweet.image), self.folder),
            "objects": [os.path.relpath(str(crop), self.folder) for crop in tweet.objects],
            **pair,
        }


def as_json(value: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(value))


@pytest.fixture(scope="session")
def entities(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The test split of picture-tweets for entities."""
    return _picture_tweets(tmp_path_factory, "ner", 48)


@pytest.fixture(scope="session")
def relations(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The test split of picture-tweets for relations."""
    return _picture_tweets(tmp_path_factory, "re", 24)


@pytest.fixture(scope="session")
def corpus_of() -> type[Corpus]:
    """Makes one of any folder and tweets."""
    return Corpus


def _picture_tweets(tmp_path_factory: pytest.TempPathFactory, task: Any, size: int) -> Corpus:
    root = write_picture_tweets(tmp_path_factory.mktemp("corpus") / task, task, Sizes(2, 2, size))
    return Corpus(root, tuple(example.tweet for example in load_split(root, "test").examples))


@pytest.fixture(scope="session")
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps its sockets; their paths must be short."""
    with tempfile.TemporaryDirectory(prefix="hv", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def ray_here(ray_folder: Path) -> Iterator[None]:
    """Ray in this process, so that each test need not start it."""
    prepare_local_ray()
    import ray

    ray.shutdown()  # one that another module left, if any
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(ray_folder))
        with connect(None):
            yield


@dataclass(frozen=True)
class Form:
    """A form of a bulk run.

    Attributes:
        workers: makes `Workers` of `copies` and `threads`.
        annotator: the name by which it knows `Annotator`.
        arguments: what the command calls it.
    """

    workers: Any
    annotator: str
    arguments: tuple[str, ...]


LOCAL = Form(Local, "hvpnet_runtime.bulk.local.Annotator", ())
ON_RAY = Form(OnRay, "hvpnet_runtime.bulk.on_ray.cluster.Annotator", ("--ray",))


@pytest.fixture(params=[LOCAL, pytest.param(ON_RAY, marks=pytest.mark.heavy)], ids=["local", "ray"])
def form(request: pytest.FixtureRequest) -> Form:
    """Either form, Ray's in this process."""
    if request.param is ON_RAY:
        request.getfixturevalue("ray_here")
    form: Form = request.param
    return form


_MAIN = "import sys; from hvpnet.cli import main; sys.exit(main())"
Command = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(ray_folder: Path) -> Iterator[Command]:
    """`hvpnet ARGUMENTS` as a process; killed at the end if it still runs."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *map(str, arguments)],
            env={**os.environ, "RAY_TMPDIR": str(ray_folder), "OMP_WAIT_POLICY": "passive"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()
