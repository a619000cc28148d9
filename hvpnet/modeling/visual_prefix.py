"""Pictures to prefixes: the ResNet pyramid, its projection, and the gates of every BERT layer.

Source: HVPNeT paper, sections 3.1 and 3.2; published code, `ImageModel` and `get_visual_prompt`. Module names are those
of the published checkpoints. What one picture contributes does not depend on the others, so everything here works on a
flat batch of N pictures.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the field's name for it

from hvpnet.modeling.config import STAGES, HVPNeTConfig, ResNetConfig
from hvpnet.modeling.torchvision_compat import BasicBlock, Bottleneck, ResNet
from hvpnet_runtime.bundle import PictureSpec

PICTURES = PictureSpec()
"""The published transforms, as in every bundle."""

GRID = 2
"""Side of the grid that every stage is pooled to."""


def normalise(pixels: Tensor) -> Tensor:
    """Pixels uint8 [N, side, side, 3] -> float32 [N, 3, side, side], as torchvision's ToTensor and Normalize do it."""
    mean, std = (
        torch.tensor(values, device=pixels.device)[:, None, None]  # [3, 1, 1]
        for values in (PICTURES.mean, PICTURES.std)
    )
    # TensorRT takes uint8 only where a cast follows the input.
    return (pixels.float().permute(0, 3, 1, 2) / 255 - mean) / std


def blank_picture(device: torch.device | None = None) -> Tensor:
    """The picture that stands for a missing one in the published loaders: zeros *after* normalisation.

    Returns:
        float32 [1, 3, 224, 224].
    """
    return torch.zeros(1, 3, PICTURES.crop, PICTURES.crop, device=device)


class ImageModel(nn.Module):
    """The pooled pyramid of a torchvision ResNet without its classifier.

    Args:
        config: sizes of the ResNet.
        last_stage_only: pool only layer4 (variant `flat`).
    """

    def __init__(self, config: ResNetConfig, *, last_stage_only: bool = False) -> None:
        super().__init__()
        block = Bottleneck if config.block == "bottleneck" else BasicBlock
        self.resnet = ResNet(block, list(config.layers), groups=config.groups, width_per_group=config.width_per_group)
        self.resnet.avgpool, self.resnet.fc = nn.Identity(), nn.Identity()
        self.last_stage_only = last_stage_only

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, side, side] -> features [N, channels of the pooled stages, 2, 2]."""
        resnet = self.resnet
        x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(images))))  # [N, 64, side / 4, side / 4]
        pooled = []
        for stage in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
            x = stage(x)  # [N, channels, side_i, side_i]
            kernel = x.shape[-1] // GRID  # an odd side loses its last row and column, as published
            pooled.append(F.avg_pool2d(x, kernel_size=kernel, stride=kernel))  # [N, channels, 2, 2]
        return pooled[-1] if self.last_stage_only else torch.cat(pooled, dim=1)


def build_projection(config: HVPNeTConfig) -> nn.Module:
    """The projection of pooled features to key/value pairs: one, or for `1t3` one per ResNet stage."""
    by_stage = config.variant == "1t3"
    outputs = 2 * config.bert.hidden_size * (1 if by_stage else config.splits)
    projections = [
        nn.Sequential(
            nn.Linear(channels * GRID**2 // config.prefix_length, config.projection_size),
            nn.Tanh(),
            nn.Linear(config.projection_size, outputs),
        )
        for channels in config.projected_channels
    ]
    return nn.ModuleList(projections) if by_stage else projections[0]


def build_gates(config: HVPNeTConfig) -> nn.ModuleList:
    """One linear gate over the splits for every BERT layer; `1t3` has none."""
    inputs = config.prefix_length * 2 * config.bert.hidden_size
    return nn.ModuleList(nn.Linear(inputs, config.splits) for _ in range(config.bert.num_hidden_layers))


def gated_prefix(features: Tensor, projection: nn.Module, gates: Sequence[nn.Linear], prefix_length: int) -> Tensor:
    """Splits of key/value pairs, weighed anew for every BERT layer (`full`, `flat`, `only_obj`).

    Args:
        features: [N, channels, 2, 2].
        projection: linear, tanh, linear to [.., splits * 2 * hidden].
        gates: one linear layer to [.., splits] per BERT layer.
        prefix_length: prefix positions P per picture.

    Returns:
        prefix [N, layers, 2, P * hidden].
    """
    count = gates[0].out_features
    projected = projection(_positions(features, prefix_length))  # [N, P, splits * 2 * hidden]
    splits = projected.unflatten(2, (count, -1))  # [N, P, splits, 2 * hidden]
    mean = splits.mean(dim=2).flatten(1)  # [N, P * 2 * hidden]
    # One product for the gates of all layers.
    weight = torch.cat([gate.weight for gate in gates])  # [layers * splits, P * 2 * hidden]
    bias = torch.cat([gate.bias for gate in gates])  # [layers * splits]
    logits = F.leaky_relu(F.linear(mean, weight, bias)).unflatten(1, (-1, count))  # [N, layers, splits]
    # FP32 also in a model of lower precision; softmax(dtype=...) would be exported as a cast of the result.
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    weights = wide.softmax(-1).to(splits.dtype)
    pairs = weights @ splits.transpose(1, 2).flatten(2)  # [N, layers, P * 2 * hidden]
    return _keys_and_values(pairs, prefix_length)


def stage_prefix(features: Tensor, projections: Sequence[nn.Sequential], layers: int, prefix_length: int) -> Tensor:
    """Stage i feeds a quarter of the BERT layers, without gates (`1t3`).

    Args:
        features: [N, channels of all stages, 2, 2].
        projections: one projection to [.., 2 * hidden] per stage.
        layers: BERT layers.
        prefix_length: prefix positions P per picture.

    Returns:
        prefix [N, layers, 2, P * hidden].
    """
    channels = [cast("nn.Linear", projection[0]).in_features * prefix_length // GRID**2 for projection in projections]
    projected = [
        projection(_positions(stage, prefix_length)).flatten(1)  # [N, P * 2 * hidden]
        for projection, stage in zip(projections, features.split(channels, dim=1), strict=True)
    ]
    stage_of_layer = [layer * STAGES // layers for layer in range(layers)]
    pairs = torch.stack([projected[stage] for stage in stage_of_layer], dim=1)  # [N, layers, P * 2 * hidden]
    return _keys_and_values(pairs, prefix_length)


def _positions(features: Tensor, prefix_length: int) -> Tensor:
    """[N, channels, 2, 2] -> [N, P, channels * 4 / P]: viewed as prefix positions in memory order, as published."""
    return features.reshape(features.shape[0], prefix_length, features.shape[1] * GRID**2 // prefix_length)


def _keys_and_values(pairs: Tensor, prefix_length: int) -> Tensor:
    """[N, layers, P * 2 * hidden], key and value side by side -> [N, layers, 2, P * hidden]."""
    split: Tensor = pairs.unflatten(2, (prefix_length, 2, -1))  # [N, layers, P, 2, hidden]
    return split.transpose(2, 3).flatten(3)  # [N, layers, 2, P * hidden]
