"""Every setting of the service: the `args` of a Serve config file, or the file given to `hvpnet serve --settings`."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from hvpnet_runtime.pipeline import CACHE_BYTES
from hvpnet_runtime.preprocessing.pictures import Jpeg
from hvpnet_runtime.serving.errors import SettingsError
from hvpnet_runtime.triples.pairs import MAX_PAIRS
from hvpnet_runtime.types import ObjectSource

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServiceLimits(_Table):
    """What a request may ask for. The two of the queue refuse a request for now, the others for good.

    Attributes:
        body_bytes: of a request's body, counted while it arrives; 413 beyond.
        body_seconds: for the whole body to arrive; 408 beyond.
        answer_seconds: from the body to the answer; 504 beyond, and the work on it stops.
        tweets: in one request.
        text_characters: of a tweet's text, or of its words joined by one space.
        picture_pixels: of one picture, by its header, before it is decoded; a bundle's own limit holds too.
        queue: tweets whose bodies one ingress replica has read and not answered yet; 429 beyond.
        queue_bytes: of bodies that are not answered yet, counted while they arrive; 429 beyond.
        retry_after_seconds: what a 429 or a 503 tells the client to wait.
    """

    body_bytes: Count = 8 * 2**20
    body_seconds: Seconds = 30
    answer_seconds: Seconds = 30
    tweets: Count = 32
    text_characters: Count = 5_000
    picture_pixels: Count = 4096 * 4096
    queue: Count = 256
    queue_bytes: Count = 64 * 2**20
    retry_after_seconds: Count = 1

    @model_validator(mode="after")
    def _a_full_request_fits(self) -> Self:
        if self.queue < self.tweets:
            raise ValueError(f"queue is {self.queue}: a request of {self.tweets} tweets would never be accepted")
        if self.queue_bytes < self.body_bytes:
            raise ValueError(
                f"queue_bytes is {self.queue_bytes}: a body of {self.body_bytes} bytes would never be accepted"
            )
        return self


class Connections(_Table):
    """Connections of the service in one process; on Ray, Ray Serve's proxy takes them.

    Attributes:
        most: open at a time; 503 beyond.
        per_client: of one address, so that no client locks the others out; raise it behind a proxy of your own.
        header_seconds: for the headers of a request to arrive; 408 beyond.
        header_bytes: of headers, or of anything else in a request that is not its body; 431 beyond.
    """

    most: Count = 512
    per_client: Count = 256
    header_seconds: Seconds = 10
    header_bytes: Count = 64 * 2**10


class Batching(_Table):
    """Dynamic batching in front of a backend; can be changed while the service runs.

    Attributes:
        size: tweets in one run of the backend, at most.
        wait_ms: for more tweets, when the backend is idle. While it is busy, tweets gather without any wait.
    """

    size: Count = 16
    wait_ms: Annotated[float, Field(ge=0)] = 2


class Replicas(_Table):
    """Replicas of one deployment, and what each of them takes of the machine.

    Attributes:
        least: replicas when there is nothing to do.
        most: replicas under load; more than `least` switches autoscaling on.
        cpus: CPU cores that Ray sets aside for each. 0, which always finds a place, is right on a machine of its own.
        gpus: GPUs for each; a fraction shares one.
    """

    least: Count = 1
    most: Count = 1
    cpus: Annotated[float, Field(ge=0)] = 0
    gpus: Annotated[float, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.most < self.least:
            raise ValueError(f"most is {self.most}, below least, which is {self.least}")
        return self


class Token(_Table):
    """Where the bearer token is, on the machine of every ingress replica: never in a file of settings itself.

    Attributes:
        env: an environment variable that holds it.
        file: a file that holds it; white space around it does not count.
    """

    env: str | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("the token comes from env or from file, one of them")
        return self

    def read(self) -> str:
        """The token.

        Raises:
            SettingsError: there is none, and a service that was to be protected must not start without; or no header
                can carry it.
        """
        try:
            token = self.file.read_text("utf-8-sig") if self.file else os.environ.get(self.env or "", "")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"the token file {self.file} cannot be read: {error}") from error
        token, place = token.strip(), self.file or f"the environment variable {self.env}"
        if not token:
            raise SettingsError(f"there is no bearer token in {place}")
        if not token.isascii():
            raise SettingsError(f"the bearer token in {place} has characters beyond ASCII; choose another")
        return token


class Triples(_Table):
    """How `/v1/triples` answers; see `TriplePipeline`.

    Attributes:
        threshold: triples with a smaller score are dropped.
        any_types: ask about relations whose names carry other types than the entities have, too.
        max_pairs: of one post.
    """

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    any_types: bool = False
    max_pairs: Count = MAX_PAIRS


class Settings(_Table):
    """The whole service.

    Attributes:
        bundles: folders by the name that requests give; the first is the default. Every node has the same folders.
        backend: see `Pipeline.load`.
        precision: of the graphs; see `Pipeline.load`.
        device: number of the GPU; see `Pipeline.load`. Not on Ray, which gives a GPU to each replica that has one.
        threads: CPU threads of one backend; by default all cores.
        window: slide over texts beyond the piece budget instead of cutting them.
        jpeg: see `Jpeg`.
        objects: see `ObjectSource`.
        cache_bytes: of each backend's prefix cache.
        stop_seconds: for the requests in hand when `hvpnet serve` is told to stop; what comes then gets 503.
        token: where the bearer token is; without it, anyone who reaches the port is served.
    """

    bundles: Annotated[dict[Name, Path], Field(min_length=1)]
    backend: str = "auto"
    precision: str | None = None
    device: Annotated[int, Field(ge=0)] | None = None
    threads: Count | None = None
    window: bool = False
    jpeg: Jpeg = "full"
    objects: ObjectSource | None = None
    cache_bytes: Annotated[int, Field(ge=0)] = CACHE_BYTES
    stop_seconds: Annotated[float, Field(ge=0)] = 20
    limits: ServiceLimits = ServiceLimits()
    connections: Connections = Connections()
    batching: Batching = Batching()
    triples: Triples = Triples()
    ingress: Replicas = Replicas()
    preparation: Replicas = Replicas()
    grounding: Replicas = Replicas()
    inference: Replicas = Replicas()
    token: Token | None = None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """From plain values.

        Raises:
            SettingsError: one is unknown or impossible; the message names it.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(f"settings: {first_error(error, 'settings')[1]}") from error

    @property
    def default_bundle(self) -> str:
        """What a request without a bundle's name gets."""
        return next(iter(self.bundles))


def read_settings(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except RecursionError as error:
        raise SettingsError(f"settings {path} cannot be read: it is nested too deep") from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"settings {path} cannot be read: {error}") from error


def first_error(error: ValidationError, whole: str) -> tuple[str, str]:
    """The first of pydantic's errors: its type, and in one line where in the whole it is and what is wrong there."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"])) or f"the {whole}"
    return first["type"], f"{place}: {first['msg']}"
