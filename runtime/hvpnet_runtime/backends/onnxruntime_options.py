"""How ONNX Runtime's GPU providers are set up, and which shapes they are asked for."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from hvpnet_runtime.backends.base import MAX_PICTURES
from hvpnet_runtime.backends.cuda import Stream
from hvpnet_runtime.backends.onnxruntime import Providers
from hvpnet_runtime.backends.profiles import Profile, text_lengths
from hvpnet_runtime.bundle import Bundle, GraphName, GraphSpec, Precision
from hvpnet_runtime.errors import BackendError

Kind: TypeAlias = Literal["onnxruntime-tensorrt", "onnxruntime-cuda"]

PROVIDERS: Mapping[Kind, str] = {
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
}

EXTRAS: Mapping[Kind, str] = {"onnxruntime-tensorrt": "gpu-tensorrt", "onnxruntime-cuda": "gpu"}

MOST_TEXTS = 32
"""Texts in one run; more are run in parts. An engine of TensorRT is built for a largest shape."""

_EXPECTED_TEXTS, _EXPECTED_LENGTH = 8, 64
"""Texts and their pieces that TensorRT times its kernels with."""


def cuda_options(
    precision: str, ordinal: int, stream: Stream | None = None, *, channels_last: bool = False
) -> Providers:
    """The CUDA provider.

    FP32 graphs are computed in FP32: by default the provider would round their factors to TF32's 10 bits. Kernels of
    convolutions are chosen by cuDNN's heuristics, for the default search times all of them at every new shape and finds
    nothing faster.

    Args:
        precision: of the graphs.
        ordinal: of the GPU.
        stream: that it queues its work on; by default one of its own.
        channels_last: whether convolutions have channels last, as tensor cores read them: on an H100, FP16 takes 0.90
            instead of 1.11 ms for four pictures so, and FP32 3.31 instead of 3.02.

    Convolutions that add their biases themselves (`fuse_conv_bias`) would take a fifth less, but launches failed with
    it on an H200 once pictures came in several counts (cudaErrorLaunchFailure). Its kernels are compiled at run time,
    presumably unloaded for the next count, and still in the CUDA graphs of the one before.
    """
    options = {
        "device_id": str(ordinal),
        "use_tf32": str(int(precision != "fp32")),
        "cudnn_conv_algo_search": "HEURISTIC",
        "prefer_nhwc": str(int(channels_last)),
    }
    return {PROVIDERS["onnxruntime-cuda"]: options | _on(stream)}


def tensorrt_options(
    spec: GraphSpec, precision: str, ordinal: int, stream: Stream, folder: Path, max_length: int
) -> Providers:
    """The TensorRT provider for one graph, which hands what it cannot run to the CUDA one.

    One engine serves all shapes up to the largest, and is kept in the folder; without a profile it would be built
    again, for minutes, whenever a text is longer than all before. The provider has no option to keep TensorRT from
    TF32, so that FP32 graphs are computed in it where the GPU can.

    Args:
        spec: of the graph.
        precision: of the graph. FP16 has to be allowed for FP16 graphs; layer norms stay in FP32.
        ordinal: of the GPU.
        stream: that it queues its work on.
        folder: of its engines, which exists.
        max_length: most pieces of a text.
    """
    least, expected, most = (_profile(spec, max_length, which) for which in (0, 1, 2))
    options = {
        "device_id": str(ordinal),
        "trt_engine_cache_enable": "1",
        "trt_timing_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_path": str(folder),
        "trt_profile_min_shapes": least,
        "trt_profile_opt_shapes": expected,
        "trt_profile_max_shapes": most,
    }
    if precision == "fp16":
        options |= {"trt_fp16_enable": "1", "trt_layer_norm_fp32_fallback": "1"}
    return {PROVIDERS["onnxruntime-tensorrt"]: options | _on(stream), **cuda_options(precision, ordinal, stream)}


def provider_cache(bundle: Bundle, version: str, precision: Precision) -> Path:
    """The folder of the engines that ONNX Runtime's TensorRT provider builds of these graphs; it is made.

    The provider takes an engine by the names of a graph's nodes, not by its weights, so that the folder tells the
    graphs apart.

    Raises:
        BackendError: it cannot be made.
    """
    digests = [bundle.manifest.files[f"onnx/{precision}/{graph}.onnx"].sha256[:8] for graph in bundle.specs(precision)]
    folder = bundle.path / "engines" / "-".join((f"onnxruntime-{version}", precision, *digests))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BackendError(
            f"onnxruntime-tensorrt keeps the engines it builds in {folder}, which cannot be made ({error.strerror}):"
            " make the bundle writable, or run it once where it is"
        ) from error
    return folder


def session_profiles(graphs: Iterable[GraphName], max_length: int) -> dict[GraphName, tuple[Profile, ...]]:
    """Shapes that graphs are run at: cuDNN and TensorRT choose kernels for every shape, and so does a CUDA graph."""
    texts = tuple(Profile((1, _EXPECTED_TEXTS, MOST_TEXTS), length) for length in text_lengths(max_length))
    pictures = (Profile((1, MAX_PICTURES // 4, MAX_PICTURES)),)
    return {graph: pictures if graph == "vision" else texts for graph in graphs}


def _profile(spec: GraphSpec, max_length: int, which: int) -> str:
    """The smallest, expected or largest shape of every input, as the provider reads it."""
    profiles = session_profiles([spec.name], max_length)[spec.name]
    lengths = (profiles[0].length, min(_EXPECTED_LENGTH, max_length), profiles[-1].length)
    shapes = spec.input_shapes(profiles[0].batch[which], lengths[which])
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())


def _on(stream: Stream | None) -> dict[str, str]:
    return {} if stream is None else {"user_compute_stream": str(stream)}
