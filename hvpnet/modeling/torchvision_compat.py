"""Import torchvision also where its compiled operators do not match the installed PyTorch.

A CUDA build of torchvision on a CPU build of PyTorch (or the reverse) cannot load `torchvision._C`. Its Python part
then dies on import with "operator torchvision::nms does not exist", because it registers shape functions for two
operators that `_C` would have declared. We use none of the compiled operators, so declaring the two is enough.
"""

import torch
from torch import library

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _load_operators() -> None:
    from importlib.util import find_spec
    from pathlib import Path

    package = find_spec("torchvision")
    if package is None or package.origin is None:
        return  # the import below says so
    for operators in Path(package.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(operators))
        except OSError:
            continue
        return
    declared = library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        declared.define(schema)
    _kept.append(declared)


_kept: list[library.Library] = []  # a Library withdraws its operators when it is collected
_load_operators()

from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet  # noqa: E402  needs the operators above

__all__ = ["BasicBlock", "Bottleneck", "ResNet"]
