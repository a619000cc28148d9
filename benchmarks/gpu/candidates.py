"""What is timed: the checkpoint in PyTorch, and its bundle on every backend that knows a GPU."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cpu_provider import CpuProviderBackend
from fake_gpu import FakeCuda, fake_api, write_fake_engines
from models import Subject
from torch import Tensor

from hvpnet.bench.eager import EagerBackend
from hvpnet.modeling.visual_prefix import normalise
from hvpnet_runtime.backends import Prefix, TextInputs
from hvpnet_runtime.backends.onnxruntime_gpu import OnnxRuntimeGpuBackend
from hvpnet_runtime.backends.tensorrt.backend import TensorRTBackend
from hvpnet_runtime.backends.tensorrt.build import BuildOptions, build_engines
from hvpnet_runtime.backends.tensorrt.library import EngineName
from hvpnet_runtime.bundle import Bundle, Precision
from hvpnet_runtime.errors import BackendError

Load = Callable[[Subject], Any]


class TorchGraphs(EagerBackend):
    """PyTorch's own CUDA graphs, one for every shape: what eager PyTorch does without its launches."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if not torch.cuda.is_available():
            raise BackendError("PyTorch sees no CUDA GPU")
        super().__init__(*arguments, **options)
        self._captured: dict[Any, tuple[torch.cuda.CUDAGraph, dict[str, Tensor], Tensor]] = {}

    @torch.inference_mode()
    def encode_pictures(self, pixels: Any) -> list[Tensor]:
        """See `Backend`."""
        images = pixels if isinstance(pixels, Tensor) else normalise(torch.from_numpy(pixels))
        return list(self._replay(self._pictures, {"images": images}).clone())

    @torch.inference_mode()
    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """See `Backend`."""
        inputs: dict[str, Tensor] = {name: torch.from_numpy(array) for name, array in text.arrays().items()}
        inputs["prefix"] = torch.stack([torch.stack(list(row)) for row in prefixes])  # type: ignore[arg-type]
        outputs: npt.NDArray[np.float32] = self._replay(self._text, inputs).float().cpu().numpy()
        return outputs

    def _replay(self, function: Callable[..., Tensor], inputs: dict[str, Tensor]) -> Tensor:
        key = (function, *(tuple(each.shape) for each in inputs.values()))
        if key not in self._captured:
            self._captured[key] = self._capture(function, inputs)
        graph, fixed, output = self._captured[key]
        for name, tensor in inputs.items():
            fixed[name].copy_(tensor, non_blocking=True)
        graph.replay()
        return output

    def _capture(self, function: Callable[..., Tensor], inputs: dict[str, Tensor]) -> Any:
        dtypes = {
            name: next(self.model.bert.parameters()).dtype if each.is_floating_point() else each.dtype
            for name, each in inputs.items()
        }
        fixed = {name: each.to("cuda", dtypes[name]) for name, each in inputs.items()}
        arguments: list[Tensor] = [fixed["images"]] if "images" in fixed else []
        named = {} if arguments else fixed
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                function(*arguments, **named)
        side.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = function(*arguments, **named)
        return graph, fixed, output


def _pytorch(kind: type[EagerBackend], precision: str, *, compiled: bool = False) -> Load:
    def load(subject: Subject) -> EagerBackend:
        if compiled and not torch.cuda.is_available():
            raise BackendError("torch.compile is timed on a GPU only")
        return kind(subject.load(), precision, compiled=compiled)

    return load


def _onnxruntime(precision: Precision, **options: Any) -> Load:
    return lambda subject: OnnxRuntimeGpuBackend(Bundle.load(subject.bundle), "onnxruntime-cuda", precision, **options)


def _tensorrt(engine: EngineName, precision: Precision, **options: Any) -> Load:
    def load(subject: Subject) -> TensorRTBackend:
        bundle = Bundle.load(subject.bundle)
        if not list((subject.bundle / "engines").glob(f"{engine}-[0-9]*-{precision}")):
            build_engines(bundle, BuildOptions(engine, precision))
        return TensorRTBackend(bundle, engine, precision, **options)

    return load


def _fake_onnxruntime(precision: Precision) -> Load:
    return lambda subject: CpuProviderBackend(Bundle.load(subject.bundle), "onnxruntime-cuda", precision)


def _fake_tensorrt(precision: Precision, **options: Any) -> Load:
    def load(subject: Subject) -> TensorRTBackend:
        bundle, cuda = Bundle.load(subject.bundle), FakeCuda()
        api = fake_api(cuda)
        if not list((subject.bundle / "engines").glob(f"*-{precision}")):
            write_fake_engines(bundle, api, precision, max_batch=32)
        return TensorRTBackend(bundle, "tensorrt", precision, cuda=cuda, api=api, **options)

    return load


CANDIDATES: dict[str, Load] = {
    "eager fp32": _pytorch(EagerBackend, "fp32"),
    "eager fp16": _pytorch(EagerBackend, "fp16"),
    "PyTorch with CUDA graphs fp32": _pytorch(TorchGraphs, "fp32"),
    "PyTorch with CUDA graphs fp16": _pytorch(TorchGraphs, "fp16"),
    "onnxruntime-cuda fp32": _onnxruntime("fp32"),
    "onnxruntime-cuda fp16": _onnxruntime("fp16"),
    "onnxruntime-cuda fp16 without CUDA graphs": _onnxruntime("fp16", cuda_graphs=False),
    "tensorrt fp16": _tensorrt("tensorrt", "fp16"),
    "tensorrt int8_fp16": _tensorrt("tensorrt", "int8_fp16"),
    "tensorrt fp16 without CUDA graphs": _tensorrt("tensorrt", "fp16", cuda_graphs=False),
    "tensorrt-rtx fp16": _tensorrt("tensorrt-rtx", "fp16"),
    "tensorrt-rtx int8_fp16": _tensorrt("tensorrt-rtx", "int8_fp16"),
    "tensorrt-rtx fp16 without CUDA graphs": _tensorrt("tensorrt-rtx", "fp16", cuda_graphs=False),
    "torch.compile fp16": _pytorch(EagerBackend, "fp16", compiled=True),  # last, for it compiles for minutes
}
"""What is timed, by name; the first is what the others are compared with."""

IN_DRY_RUNS: dict[str, Load] = {
    "eager fp16": _pytorch(EagerBackend, "bf16"),  # what PyTorch has on a CPU
    "onnxruntime-cuda fp32": _fake_onnxruntime("fp32"),
    "onnxruntime-cuda fp16": _fake_onnxruntime("fp16"),
    "tensorrt fp16": _fake_tensorrt("fp16"),
    "tensorrt int8_fp16": _fake_tensorrt("int8_fp16"),
    "tensorrt fp16 without CUDA graphs": _fake_tensorrt("fp16", cuda_graphs=False),
}
"""What stands for them where there is no GPU; the others say that there is none."""


def load(name: str, subject: Subject, *, dry_run: bool) -> Any:
    """The backend of a candidate; raises what stops it from running here."""
    return ({**CANDIDATES, **IN_DRY_RUNS} if dry_run else CANDIDATES)[name](subject)
