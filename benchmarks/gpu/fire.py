"""Captures under fire: eight threads ask, while others allocate, synchronise the device and collect garbage.

Every answer is held against an oracle on the CPU. Afterwards the device's memory must be back at its level. Who stands
it are the TensorRT backend, on a library of CuPy kernels whose answers are known to the last bit, and ONNX Runtime.
"""

import argparse
import gc
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import sums
import torch
from candidates import load
from copies import device_bytes, synchronize
from fake_gpu import FakeCuda, fake_api, write_fake_engines
from keeping import write_json
from models import Subject, pictures

from hvpnet_runtime.backends import TextInputs, load_backend
from hvpnet_runtime.backends.cuda import Cuda
from hvpnet_runtime.backends.tensorrt.backend import TensorRTBackend
from hvpnet_runtime.bundle import Bundle

THREADS = 8
DISTINCT = 200
"""Requests of which all others are repetitions."""
PICTURES = 32
REQUESTS = {"cupy": 10_000, "onnxruntime-cuda fp16": 3_000}
SLACK = 2**21
"""Bytes that the device's memory may differ by afterwards: one page of it."""

Oracle = Callable[[TextInputs, np.ndarray], np.ndarray]
"""What texts [B, T] with the pictures of these numbers [B, 4] get."""


class Warnings(logging.Handler):
    """Keeps what the backends warn of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def disturbances() -> Iterator[dict[str, int]]:
    """Threads that do what breaks captures, until the end; how often each did it.

    What is there already is frozen: a collection that walks all of PyTorch's objects holds every thread for a while.
    """
    gc.freeze()
    over = Event()
    counts = {"allocations": 0, "synchronisations": 0, "collections": 0, "refused": 0}

    def allocate() -> None:
        held = [torch.empty(2**22, device="cuda") for _ in range(3)]
        del held
        torch.cuda.empty_cache()

    acts: dict[str, Callable[[], Any]] = {"collections": gc.collect}
    if torch.cuda.is_available():
        acts |= {"allocations": allocate, "synchronisations": synchronize}

    def repeat(name: str) -> None:
        while not over.wait(0.003):
            try:
                acts[name]()
                counts[name] += 1
            except RuntimeError:  # CUDA refuses a synchronisation of the device while somebody captures
                counts["refused"] += 1

    threads = [Thread(target=repeat, args=(name,)) for name in acts]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        over.set()
        for thread in threads:
            thread.join()
        gc.unfreeze()


def requests(bundle: Bundle, count: int) -> list[tuple[TextInputs, np.ndarray]]:
    """Texts [B, T] of many shapes, and the numbers [B, 4] of their pictures."""
    rng, found = np.random.default_rng(3), []
    longest = min(bundle.manifest.limits.max_length, 80)
    for _ in range(count):
        rows, length = int(rng.choice([1, 1, 1, 2, 3, 5])), int(rng.integers(4, longest))
        lengths = rng.integers(3, length + 1, rows)
        lengths[0] = length
        mask = (np.arange(length) < lengths[:, None]).astype(np.int64)  # [B, T]
        ids = rng.integers(1, bundle.sizes.vocabulary, (rows, length)) * mask
        found.append((TextInputs(ids, mask), rng.integers(0, PICTURES, (rows, 4))))
    return found


def stand(backend: Any, bundle: Bundle, oracle: Oracle, bound: float, count: int) -> dict[str, Any]:
    """Ask many times from all threads; what was answered wrongly, and what was warned of."""
    images, asked = pictures(PICTURES), requests(bundle, min(count, DISTINCT))
    expected = [oracle(text, numbers) for text, numbers in asked]
    warned = Warnings()
    logging.getLogger("hvpnet_runtime").addHandler(warned)

    def ask(number: int) -> float:
        text, numbers = asked[number % len(asked)]
        flat = backend.encode_pictures(images[numbers.ravel()])
        answer = backend.encode_text(text, [flat[4 * row : 4 * row + 4] for row in range(len(numbers))])
        right = expected[number % len(asked)]
        kept = text.attention_mask == 1
        return float(np.abs(answer[kept] - right[kept]).max() / np.abs(right).max())

    start = time.perf_counter()
    with disturbances() as counts, ThreadPoolExecutor(THREADS) as pool:
        distances = list(pool.map(ask, range(count)))
    wrong = sum(not distance <= bound for distance in distances)  # NaN is wrong
    seconds = time.perf_counter() - start
    logging.getLogger("hvpnet_runtime").removeHandler(warned)
    return {
        "requests": count,
        "wrong": wrong,
        "largest_distance": max(distances),
        "requests_a_second": round(count / seconds),
        "disturbances": dict(counts),
        "warnings": len(warned.lines),
        "first_warnings": warned.lines[:3],
    }


def on_sums(bundle: Bundle, *, dry_run: bool) -> tuple[Callable[[], Any], Oracle, float]:
    """The TensorRT backend on kernels of our own; a dry run has the fake library, which runs the graphs themselves."""
    cuda: Cuda = FakeCuda() if dry_run else Cuda()
    if dry_run:
        api = fake_api(cuda)  # type: ignore[arg-type]
    else:
        from cupy_library import cupy_api

        api = cupy_api(cuda)
    write_fake_engines(bundle, api, "fp16", max_batch=8, gpu=cuda.device())

    def make() -> TensorRTBackend:
        return TensorRTBackend(bundle, "tensorrt", cuda=cuda, api=api)

    if dry_run:
        return make, on_cpu(bundle), 1e-3
    size, images = int(np.prod(bundle.sizes.prefix_shape)), pictures(PICTURES)

    def answer(text: TextInputs, numbers: np.ndarray) -> np.ndarray:
        return sums.emissions(text.input_ids, text.attention_mask, images[numbers], size, len(bundle.labels))

    return make, answer, 0.0


def on_cpu(bundle: Bundle) -> Oracle:
    """What the FP32 graphs answer on the CPU."""
    backend = load_backend(bundle, "onnxruntime-cpu", precision="fp32")
    prefixes = backend.encode_pictures(pictures(PICTURES))

    def answer(text: TextInputs, numbers: np.ndarray) -> np.ndarray:
        return backend.encode_text(text, [[prefixes[number] for number in row] for row in numbers])

    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("name", choices=REQUESTS)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    subject = Subject(options.work / "ner")
    bundle = Bundle.load(subject.bundle)
    if options.name == "cupy":
        copied = shutil.copytree(subject.bundle, options.work / "fire", copy_function=os.link)
        bundle = Bundle.load(copied)  # its engines are no TensorRT's, which must not find them
        make, oracle, bound = on_sums(bundle, dry_run=options.dry_run)
    else:
        make, oracle, bound = (
            lambda: load(options.name, subject, dry_run=options.dry_run),
            on_cpu(bundle),
            3e-2,
        )
    count = 8 if options.dry_run else REQUESTS[options.name]
    settle(make, bundle, oracle, bound, dry_run=options.dry_run)
    before = device_bytes()
    backend = make()
    try:
        found = stand(backend, bundle, oracle, bound, count)
    finally:
        backend.close()
    del backend
    gc.collect()
    found["bytes_not_freed"] = device_bytes() - before
    write_json(options.out, found)
    if found["wrong"] or found["bytes_not_freed"] > SLACK:
        raise SystemExit(f"{found['wrong']} wrong answers, {found['bytes_not_freed']} bytes not freed")


def settle(make: Callable[[], Any], bundle: Bundle, oracle: Oracle, bound: float, *, dry_run: bool) -> None:
    """A first life of the backend, every request once, for libraries keep what they load with their first use."""
    backend = make()
    stand(backend, bundle, oracle, bound, 2 * THREADS if dry_run else DISTINCT)
    backend.close()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
