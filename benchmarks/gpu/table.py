"""Time one candidate: batches of 1, 8 and 32 texts of 32, 80 and 128 pieces, every tweet with four new pictures.

Pixels and pieces are ready beforehand. Host clocks are read when the device is done: after the pictures, and when the
emissions are there. The whole is timed apart, without the wait between the two graphs.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from candidates import CANDIDATES, load
from copies import Copies, device_bytes, synchronize
from keeping import write_json
from models import LENGTHS, Subject, pictures

from hvpnet.bench.statistics import Summary
from hvpnet.modeling.visual_prefix import normalise
from hvpnet_runtime.backends import TextInputs
from hvpnet_runtime.backends.base import MAX_PICTURES
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.decoding.crf import CrfDecoder

BATCHES = (1, 8, 32)
SLOTS = 4
LEAST, MOST = 20, 300


class Run:
    """One case of one candidate."""

    def __init__(self, backend: Any, decoder: CrfDecoder, batch: int, length: int, words: int) -> None:
        rng = np.random.default_rng([batch, length])
        ids = rng.integers(min(1000, words // 2), words, (batch, length))
        self.text = TextInputs(ids, np.ones((batch, length), np.int64))
        pixels = pictures(batch * SLOTS)  # uint8 [B * 4, 224, 224, 3]
        self.pixels: list[Any] = [pixels[start : start + MAX_PICTURES] for start in range(0, len(pixels), MAX_PICTURES)]
        if backend.name == "eager":  # PyTorch's transforms normalise before the model, on the host
            self.pixels = [normalise(torch.from_numpy(pixels))]  # float [B * 4, 3, 224, 224]
            if torch.cuda.is_available():
                self.pixels = [self.pixels[0].pin_memory()]
        self._backend, self._decoder = backend, decoder

    def __call__(self, wait: Callable[[], None] = lambda: None) -> list[float]:
        """Seconds of the three stages."""
        times = [time.perf_counter()]
        prefixes = [prefix for part in self.pixels for prefix in self._backend.encode_pictures(part)]
        wait()
        times.append(time.perf_counter())
        rows = [prefixes[start : start + SLOTS] for start in range(0, len(prefixes), SLOTS)]
        emissions = self._backend.encode_text(self.text, rows)
        times.append(time.perf_counter())
        self._decoder.decode(emissions, self.text.attention_mask)
        times.append(time.perf_counter())
        return np.diff(times).tolist()

    def bytes(self, labels: int) -> tuple[int, int]:
        """What is copied to the device and back."""
        read = sum(part.nbytes for part in self.pixels) + sum(each.nbytes for each in self.text.arrays().values())
        return read, self.text.input_ids.size * labels * 4


def repeat(call: Callable[[], Any], seconds: float) -> list[Any]:
    """What the calls give, within a time and between the two bounds of their number."""
    found, end = [], time.perf_counter() + seconds
    while len(found) < (LEAST if seconds else 1) or (len(found) < MOST and time.perf_counter() < end):
        found.append(call())
    return found


def measure(run: Run, copies: Copies, labels: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of a case: the stages' medians, and percentiles of the whole."""
    for _ in range(5):
        run(synchronize)
    stages = 1000 * np.median(repeat(lambda: run(synchronize), seconds), axis=0)  # [vision, text, viterbi]
    whole = [1000 * sum(times) for times in repeat(run, seconds)]
    engines = [1000 * (times[0] + times[1]) for times in repeat(run, seconds)]
    with copies.of(*run.bytes(labels)) as both:
        into, out = (1000 * float(np.median(repeat(copy, seconds / 10))) for copy in both)
    names = ("vision", "text", "viterbi")
    return {
        "stages": {"copy in": into, **dict(zip(names, stages.tolist(), strict=True)), "copy out": out},
        "total": vars(Summary.of(whole)),
        "engines_ms": float(np.median(engines)),
    }


def time_candidate(name: str, subject: Subject, *, dry_run: bool, seconds: float) -> dict[str, Any]:
    bundle, copies = Bundle.load(subject.bundle), Copies(dry_run=dry_run)
    before = device_bytes()
    backend = load(name, subject, dry_run=dry_run)
    decoder, cases = CrfDecoder(**bundle.decoder_scores()), []
    try:
        for batch, length in [(batch, length) for batch in BATCHES for length in LENGTHS][: 2 if dry_run else None]:
            run = Run(backend, decoder, batch, length, bundle.sizes.vocabulary)
            gflop = batch * (SLOTS * subject.gflop["vision"] + subject.gflop[str(length)])
            found = measure(run, copies, len(bundle.labels), seconds)
            cases.append({"name": f"{batch} x {length}", "gflop": round(gflop, 2), **found})
    finally:
        used = device_bytes() - before
        backend.close()
    return {"candidate": name, "device_mib": round(used / 2**20), "cases": cases}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("name", choices=CANDIDATES)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args(arguments)
    seconds = 0.0 if options.dry_run else 0.2
    subject = Subject(options.work / "ner")
    write_json(options.out, time_candidate(options.name, subject, dry_run=options.dry_run, seconds=seconds))


if __name__ == "__main__":
    main()
