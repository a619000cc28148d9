"""Tweets of the training data: some to calibrate INT8 with, others to verify it on."""

from dataclasses import dataclass
from typing import Self

from hvpnet.data import Example, Split
from hvpnet.modeling.config import HVPNeTConfig
from hvpnet_export.errors import ExportError

TWEETS = 64
"""To calibrate with, and as many others to verify on."""


@dataclass(frozen=True)
class CalibrationData:
    """What the INT8 graphs are made with.

    Attributes:
        calibration: tweets whose activations set the ranges.
        verification: other tweets, on which the graphs are held against the eager model.
    """

    calibration: tuple[Example, ...]
    verification: tuple[Example, ...]

    @classmethod
    def choose(cls, split: Split, config: HVPNeTConfig) -> Self:
        """Tweets evenly spaced over a split, alternately for the one and for the other.

        Raises:
            ExportError: the split is of the other task, has too few tweets, or no pictures for a model that reads them.
        """
        if split.task != config.task:
            raise ExportError(f"the calibration data are for task {split.task}, the checkpoint is for {config.task}")
        if config.pictures and not split.has_pictures:
            raise ExportError("the calibration data have no pictures, and the model reads them: add the pictures")
        if len(split.examples) < 2:
            raise ExportError("the calibration data have one tweet: one is needed to calibrate and one to verify")
        step = max(1, len(split.examples) // (2 * TWEETS))
        chosen = split.examples[::step][: 2 * TWEETS]
        return cls(chosen[::2], chosen[1::2])
