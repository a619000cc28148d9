"""A TensorRT library of CuPy kernels: real streams, memory and CUDA graphs where TensorRT itself cannot be had.

It has the interface of the fake library of the tests, and its two networks are sums that an oracle on the CPU knows to
the last bit (`sums`): what a lost copy, a wrong slot or a stale graph leaves in them cannot hide.
"""

from pathlib import Path
from typing import Any

import cupy
import numpy as np
from fake_gpu import FakeContext, FakeEngine, FakeLibrary
from sums import SAMPLES

from hvpnet_runtime.backends.cuda import Cuda
from hvpnet_runtime.backends.tensorrt.library import Library

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


_HEADERS = Path(cupy.cuda.get_cuda_path() or "/usr/local/cuda") / "include"


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
        kernels.get_function("sums")((count,), (SAMPLES,), arguments)
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

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        kind = "__half" if self.get_tensor_dtype("prefix") == np.float16 else "float"
        self.kernels = cupy.RawModule(code=_SOURCE, options=(f"-DTYPE={kind}", f"-I{_HEADERS}"))

    def create_execution_context(self, _config: Any) -> CupyContext:
        """As TensorRT does, the device is waited for."""
        self.trt.wait_for_device()
        return CupyContext(self)


class CupyLibrary(FakeLibrary):
    """The library, on the current device."""

    def __init__(self, cuda: Cuda) -> None:
        super().__init__(cuda)
        self.engine_type = CupyEngine

    def wait_for_device(self) -> None:
        """What contexts do when they are made and freed; it breaks captures of other threads."""
        cupy.cuda.runtime.deviceSynchronize()


def cupy_api(cuda: Cuda) -> Library:
    """The library as the TensorRT backend takes it."""
    library = CupyLibrary(cuda)
    return Library("tensorrt", library, None, library.errors)
