"""Darknet-53 with the necks of YOLOv3, up to what its three detectors read.

Source: "YOLOv3: An Incremental Improvement" (2018), yolov3.cfg; modules are numbered as the layers of that file, as in
the checkpoints of the published grounding model. The layers behind the last one that a detector reads (80, 81, 92, 93
and 103 to 105) are in those checkpoints too, and not here.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the field's name for it

BLOCKS = (1, 2, 8, 8, 4)
"""Residual blocks of each stage; a stage halves the picture's sides."""
NECKS = (75, 87, 99)
"""Number of each neck's first layer, coarse to fine."""
STRIDES = (32, 16, 8)
"""Pixels of a cell's side, coarse to fine."""

WIDTH = 32
"""Channels of the first layer, as published."""


class Darknet(nn.Module):
    """Pictures to features at three strides.

    Args:
        width: channels of the first layer; all others are multiples of it.
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.channels = (32 * width, 16 * width, 8 * width)
        self.module_list = nn.ModuleDict()
        self._add(0, 3, width, 3)
        number, channels = 1, width
        for blocks in BLOCKS:
            self._add(number, channels, 2 * channels, 3, stride=2)
            for first in range(number + 1, number + 1 + 3 * blocks, 3):  # a shortcut has a number too
                self._add(first, 2 * channels, channels, 1)
                self._add(first + 1, channels, 2 * channels, 3)
            number, channels = number + 1 + 3 * blocks, 2 * channels
        self._add_necks()

    def _add_necks(self) -> None:
        for first, channels in zip(NECKS, self.channels, strict=True):
            narrow, inputs = channels // 2, channels
            if first != NECKS[0]:
                self._add(first - 3, channels, narrow, 1)  # what the coarser neck ends with, before it is enlarged
                inputs = narrow + channels
            for place in range(5 if first != NECKS[-1] else 4):
                kernel, outputs = (1, narrow) if place % 2 == 0 else (3, channels)
                self._add(first + place, inputs, outputs, kernel)
                inputs = outputs

    def _add(self, number: int, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        layer = OrderedDict[str, nn.Module]()
        layer[f"conv_{number}"] = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        layer[f"batch_norm_{number}"] = nn.BatchNorm2d(outputs)
        layer[f"leaky_{number}"] = nn.LeakyReLU(0.1)
        self.module_list[str(number)] = nn.Sequential(layer)

    def _run(self, x: Tensor, first: int, count: int = 1) -> Tensor:
        for number in range(first, first + count):
            x = self.module_list[str(number)](x)
        return x

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised images [N, 3, S, S] -> features [N, channels, S / stride, S / stride], coarse to fine."""
        x, number = self._run(images, 0), 1  # [N, w, S, S]
        stages = []
        for blocks in BLOCKS:
            x = self._run(x, number)
            for first in range(number + 1, number + 1 + 3 * blocks, 3):
                x = x + self._run(x, first, 2)
            number += 1 + 3 * blocks
            stages.append(x)
        features: list[Tensor] = []
        for first, skip in zip(NECKS, (None, stages[3], stages[2]), strict=True):
            if skip is not None:
                coarser = F.interpolate(self._run(x, first - 3), scale_factor=2, mode="nearest")
                x = torch.cat([coarser, skip], dim=1)
            features.append(x := self._run(x, first, 4))
            if first != NECKS[-1]:
                x = self._run(x, first + 4)
        return tuple(features)
