"""What finding objects costs: by stage, cold and cached, and as a share of an answer.

    python benchmarks/grounding.py BUNDLE --out FILE.json [--pictures 12]

The bundle has a grounder. Pictures are drawn scenes as JPEGs of 600 x 450, each new to the pipeline unless it says
"seen". Time to an answer is of one tweet of ten words, whose objects are found, or are none; ways take turns. Beside
the wall's clock there is the processor time of the process, which other processes hardly change where --threads is 1.
Memory is the process's proportional share, with both graphs of the model loaded, and what ran before.
"""

import argparse
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pictures import enlarged

from hvpnet import Pipeline, Tweet
from hvpnet.bench.machine import describe_machine
from hvpnet.data.synthetic.scenes import draw_scene
from hvpnet_runtime.backends import load_backend
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.grounding.pictures import fit
from hvpnet_runtime.preprocessing.pictures import PictureSpec, open_picture

KINDS = ("PER", "LOC", "ORG", "MISC")
TEXT = "Jordan was great in Paris today with all of Apple"
BACKENDS = ("onnxruntime-cpu", "openvino")
BATCHES = (1, 8)


def pictures() -> Iterator[bytes]:
    """Pictures without end, no two of them equal."""
    for seed, _ in enumerate(iter(int, 1)):
        scene = draw_scene(KINDS[seed % len(KINDS)], np.random.default_rng(seed))
        yield enlarged(scene.picture, 600, 450)


class Clock:
    """Milliseconds of what was run between its start and `lap`, by the wall's clock and by this process's own."""

    def __init__(self) -> None:
        self._start = self._now()

    def lap(self) -> tuple[float, float]:
        """Both since the start."""
        wall, own = (1e3 * (now - then) for now, then in zip(self._now(), self._start, strict=True))
        return wall, own

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()


def milliseconds(run: Callable[[], Any], each: int = 1) -> tuple[float, float]:
    clock = Clock()
    run()
    wall, own = clock.lap()
    return wall / each, own / each


def median(laps: list[tuple[float, float]]) -> dict[str, float]:
    wall, own = zip(*laps, strict=True)
    return {
        "wall_ms": round(float(np.median(wall)), 2),
        "least_wall_ms": round(min(wall), 2),
        "processor_ms": round(float(np.median(own)), 2),
    }


def pss_mib() -> float:
    said = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Pss:\s+(\d+)", said, re.MULTILINE)
    return round(int(found[1]) / 1024, 1) if found else float("nan")


def answers(bundle: Path, backend: str, threads: int | None, count: int, drawn: Iterator[bytes]) -> dict[str, Any]:
    """One tweet's answer: objects found in a new picture, in one that was seen, and no objects in a new one.

    An answer with objects found in a new picture also has the part of it that the grounder's network takes.
    """
    names = [f"{objects}, {when}" for objects in ("found", "none") for when in ("new", "seen")]
    laps: dict[str, list[tuple[float, float]]] = {name: [] for name in [*names, "grounder"]}
    with Pipeline.load(bundle, backend, threads=threads) as pipeline:
        find = pipeline.finder.grounder.find_objects

        def timed(*arrays: Any) -> Any:
            clock = Clock()
            found = find(*arrays)
            laps["grounder"].append(clock.lap())
            return found

        pipeline([Tweet(text=TEXT, image=next(drawn))])
        pipeline.finder.grounder.find_objects = timed
        for _ in range(count):
            for name, objects in (("found", None), ("none", ())):
                tweet = [Tweet(text=TEXT, image=next(drawn), objects=objects)]
                for when in ("new", "seen"):
                    laps[f"{name}, {when}"].append(milliseconds(lambda tweet=tweet: pipeline(tweet)))
    shares = [own / whole for (_, own), (_, whole) in zip(laps["grounder"], laps["found, new"], strict=True)]
    share = {"share of the grounder in found, new": round(float(np.median(shares)), 3)}
    return {name: median(measured) for name, measured in laps.items()} | share


def stages(bundle: Bundle, backend: str, threads: int | None, count: int, drawn: Iterator[bytes]) -> dict[str, Any]:
    """The picture's way to the grounder's input, and the grounder by batch, for each picture; memory of loading it."""
    spec, queries = bundle.grounder, len(bundle.grounder.words) or 4
    loaded = load_backend(bundle, backend, threads)
    before = pss_mib()
    grounder = loaded.load_grounder()
    vectors = np.random.default_rng(0).standard_normal((1, queries, spec.query_size)).astype(np.float32)
    images = [np.asarray(open_picture(next(drawn), PictureSpec())) for _ in range(max(BATCHES))]
    fitted = [fit(image, spec.kind, spec.size).pixels for image in images]
    found: dict[str, Any] = {
        "fit": median([milliseconds(lambda: fit(images[0], spec.kind, spec.size)) for _ in range(count)]),
        "pss_mib": {"before": before, "loaded": pss_mib()},
    }
    for batch in BATCHES:
        inputs = np.stack(fitted[:batch]), np.repeat(vectors, batch, 0)
        grounder.find_objects(*inputs)
        times = [milliseconds(lambda given=inputs: grounder.find_objects(*given), batch) for _ in range(count)]
        found[f"grounder, batch {batch}, each"] = median(times)
        found["pss_mib"][f"batch {batch}"] = pss_mib()
    grounder.close()
    loaded.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=12, help="of each kind of answer")
    parser.add_argument("--threads", type=int, help="of one run (default: all cores)")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    bundle, drawn = Bundle.load(options.bundle), pictures()
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "threads": options.threads,
        "sizes": asdict(bundle.sizes),
        "grounder": {name: value for name, value in asdict(bundle.grounder).items() if name != "parity"},
        "backends": {},
    }
    for backend in BACKENDS:
        result["backends"][backend] = {
            "stages": stages(bundle, backend, options.threads, options.pictures, drawn),
            "answers": answers(options.bundle, backend, options.threads, options.pictures, drawn),
        }
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
