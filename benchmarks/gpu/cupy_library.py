"""A TensorRT library of CuPy kernels: real streams, memory and CUDA graphs where TensorRT itself cannot be had.

It has the interface of the fake library of the tests, and its two networks are sums that an oracle on the CPU knows to
the last bit: what a lost copy, a wrong slot or a stale graph leaves in them cannot hide.
"""

from typing import Any

import cupy
import numpy as np
import numpy.typing as npt
from fake_gpu import FakeContext, FakeEngine, FakeLibrary

from hvpnet_runtime.backends.tensorrt.library import Library

_SAMPLES, _STRIDE = 256, 977
"""Pixels of a picture that its prefix is made of, and how far they are apart."""

_SOURCE = r"""
#include <cuda_fp16.h>
extern "C" __global__ void sums(const unsigned char* images, long long pixels, int* sums) {
    // one block a picture: the sum of some of its pixels
    __shared__ int total;
    if (threadIdx.x == 0) total = 0;
    __syncthreads();
    atomicAdd(&total, (int)images[blockIdx.x * pixels + (threadIdx.x * 977LL) % pixels]);
    __syncthreads();
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}
extern "C" __global__ void prefixes(const int* sums, long long size, TYPE* prefix) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < size) prefix[blockIdx.y * size + i] = (TYPE)(float)((sums[blockIdx.y] + i * 31) % 509);
}
extern "C" __global__ void emissions(const long long* ids, const long long* mask, const TYPE* prefix,
                                     int length, int labels, int pictures, long long size, float* out) {
    int t = blockIdx.x, b = blockIdx.y, l = threadIdx.x;
    if (l >= labels) return;
    float sum = (float)((ids[b * length + t] * (l + 1)) % 1021);
    for (int p = 0; p < pictures; ++p)
        sum += (p + 1) * (float)prefix[(b * pictures + p) * size + (t * 7919LL + l * 104729LL) % size];
    out[(b * length + t) * labels + l] = mask[b * length + t] ? sum : 0.0f;
}
"""


def _kernels(narrow: bool) -> Any:
    return cupy.RawModule(code=_SOURCE, options=(f"-DTYPE={'__half' if narrow else 'float'}", *_INCLUDES))


_INCLUDES = tuple(f"-I{path}" for path in cupy._environment.get_cuda_path() and [f"{cupy._environment.get_cuda_path()}/include"] or [])  # noqa: SLF001


class CupyContext(FakeContext):
    """An execution context whose kernels run on the device."""

    def execute_async_v3(self, stream: int) -> bool:
        """Queue the kernels of the engine's network."""
        engine = self.engine
        engine.trt.executions += 1
        with cupy.cuda.ExternalStream(stream):
            if "images" in self.shapes:
                self._encode_pictures(engine.kernels)
            else:
                self._encode_text(engine.kernels)
        return True

    def _encode_pictures(self, kernels: Any) -> None:
        count, *picture = self.shapes["images"]
        size = int(np.prod(self.get_tensor_shape("prefix")[1:]))
        scratch, _ = self.scratch
        arguments = (self.addresses["images"], np.int64(np.prod(picture)), scratch)
        kernels.get_function("sums")((count,), (_SAMPLES,), arguments)
        grid = ((size + 255) // 256, count)
        kernels.get_function("prefixes")(grid, (256,), (scratch, np.int64(size), self.addresses["prefix"]))

    def _encode_text(self, kernels: Any) -> None:
        rows, length = self.shapes["input_ids"]
        pictures, size = self.shapes["prefix"][1], int(np.prod(self.shapes["prefix"][2:]))
        labels = self.get_tensor_shape("emissions")[-1]
        read = [self.addresses[name] for name in ("input_ids", "attention_mask", "prefix")]
        sizes = (np.int32(length), np.int32(labels), np.int32(pictures), np.int64(size))
        kernels.get_function("emissions")((length, rows), (labels,), (*read, *sizes, self.addresses["emissions"]))


class CupyEngine(FakeEngine):
    """A plan of the fake library, run by kernels."""

    def __init__(self, trt: "CupyLibrary", plan: dict[str, Any]) -> None:
        super().__init__(trt, plan)
        self.kernels = _kernels(narrow="float16" in str(self.get_tensor_dtype("prefix")))

    def create_execution_context(self, config: Any) -> CupyContext:
        """See TensorRT."""
        context: CupyContext = CupyContext(self)
        return context


def emissions(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64], images: npt.NDArray[np.uint8], size: int, labels: int) -> npt.NDArray[np.float32]:
    """The oracle: what texts [B, T] with pictures [B, P, ...] of prefixes of `size` values get, float32 [B, T, labels]."""
    rows, length = ids.shape
    flat = images.reshape(*images.shape[:2], -1)  # [B, P, pixels]
    sums = flat[..., np.arange(_SAMPLES) * _STRIDE % flat.shape[-1]].sum(-1, dtype=np.int64)  # [B, P]
    t, l = np.meshgrid(np.arange(length), np.arange(labels), indexing="ij")
    places = (t * 7919 + l * 104729) % size  # [T, labels]
    found = (ids[..., None] * np.arange(1, labels + 1) % 1021).astype(np.float32)  # [B, T, labels]
    for p in range(images.shape[1]):
        found += (p + 1) * ((sums[:, p, None, None] + places * 31) % 509).astype(np.float32)
    return found * mask[..., None]
