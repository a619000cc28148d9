"""What the Python model is told by its config.pbtxt, as parameters: strings, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from hvpnet_runtime.errors import RepositoryError

TRITON = "triton"
"""The backend whose engines are other models of the same server."""

BUNDLE = "bundle"
"""Folder of the bundle, in the version folder of the Python model."""


@dataclass(frozen=True)
class Settings:
    """Parameters of the Python model.

    Attributes:
        backend: `triton`, or a name that `Pipeline.load` takes.
        window: as in `Pipeline.load`.
        cache_mib: limit of the prefix cache of each process, in MiB.
        precision: of the graphs; without one, what `Pipeline.load` takes by default.
        lengths: pieces that texts are padded to, ascending; of the backend `triton` only.
    """

    backend: str = "auto"
    window: bool = False
    cache_mib: int = 256
    precision: str = ""
    lengths: tuple[int, ...] = ()

    def to_parameters(self) -> dict[str, str]:
        """As they stand in config.pbtxt."""
        parameters = {"backend": self.backend, "window": str(self.window).lower(), "cache_mib": str(self.cache_mib)}
        if self.precision:
            parameters["precision"] = self.precision
        if self.backend == TRITON:
            parameters["lengths"] = ",".join(map(str, self.lengths))
        return parameters

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """From config.pbtxt, which is there to be edited.

        Raises:
            RepositoryError: a parameter is unknown or missing, or its value impossible.
        """
        lengths = parameters.get("lengths", "")
        try:
            settings = cls(
                backend=parameters["backend"],
                window=parameters["window"] == "true",  # what is neither true nor false differs below
                cache_mib=int(parameters["cache_mib"]),
                precision=parameters.get("precision", ""),
                lengths=tuple(sorted(map(int, lengths.split(",")))) if lengths else (),
            )
        except (KeyError, ValueError) as error:
            raise RepositoryError(f"config.pbtxt: a parameter is missing or impossible: {error!r}") from error
        if settings.to_parameters() != dict(parameters) or (settings.backend == TRITON and not settings.lengths):
            raise RepositoryError(f"config.pbtxt: the parameters {dict(parameters)} are not {settings.to_parameters()}")
        return settings
