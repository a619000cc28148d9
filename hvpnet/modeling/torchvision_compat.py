"""Import torchvision also where its compiled operators do not match the installed PyTorch.

A CUDA build of torchvision on a CPU build of PyTorch (or the reverse) cannot load `torchvision._C`. Its Python part
then dies on import with "operator torchvision::nms does not exist", because it registers shape functions for two
operators that `_C` would have declared. We use none of the compiled operators, so declaring the two is enough.
"""

from torch.library import Library

try:
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
except RuntimeError as error:
    if "torchvision::nms does not exist" not in str(error):
        raise
    _declared = Library("torchvision", "FRAGMENT")  # kept, as it withdraws its operators when it is collected
    for _operator in ("nms", "qnms"):
        _declared.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

__all__ = ["BasicBlock", "Bottleneck", "ResNet"]
