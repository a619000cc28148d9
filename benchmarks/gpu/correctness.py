"""Hold every candidate against eager PyTorch in FP32 on the CPU, and that against what the published code answered."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from candidates import CANDIDATES, load
from keeping import write_json
from models import Subject, pictures, subjects

from hvpnet.bench.candidates import COMPILED
from hvpnet.bench.eager import EagerBackend
from hvpnet_runtime.backends import TextInputs, load_backend
from hvpnet_runtime.bundle import QUANTISED, Bundle
from hvpnet_runtime.errors import HvpnetError

BOUNDS = {"int8_fp16": 0.1, "fp32": 5e-3, "fp16": 3e-2}  # the first name that stands in a candidate's counts
"""Largest distance of an output to eager's, as a share of eager's largest output. FP32 products of ONNX Runtime's
convolutions differ by algorithm, and random weights magnify that. INT8 is held against the same graphs on the CPU: what
lies between two steps may be rounded the other way."""

Array = npt.NDArray[Any]


def texts(bundle: Bundle) -> list[TextInputs]:
    """Single texts and batches with padding, of many lengths."""
    rng, found = np.random.default_rng(5), []
    for rows, length in ((1, 5), (3, 17), (2, 80)):
        lengths = np.maximum(5, length - 3 * np.arange(rows))
        mask = (np.arange(length) < lengths[:, None]).astype(np.int64)  # [rows, length]
        ids = rng.integers(min(1000, bundle.sizes.vocabulary // 2), bundle.sizes.vocabulary, (rows, length)) * mask
        places = () if bundle.manifest.head != "markers" else (np.ones(rows, np.int64), lengths.astype(np.int64) - 1)
        found.append(TextInputs(ids, mask, *places))
    return found


def answers(backend: Any, bundle: Bundle) -> list[Array]:
    """Emissions at tokens, or logits, one text batch after the other."""
    found = []
    for number, text in enumerate(texts(bundle)):
        rows = len(text.input_ids)
        prefixes = backend.encode_pictures(pictures(4 * rows, number))
        output = backend.encode_text(text, [prefixes[4 * row : 4 * row + 4] for row in range(rows)])
        found.append(output[text.attention_mask == 1] if bundle.task == "ner" else output)
    return found


def compare(found: list[Array], expected: list[Array]) -> dict[str, Any]:
    """The largest distance, as a share of the largest output, and how many largest outputs stand elsewhere."""
    a, b = np.concatenate(found), np.concatenate(expected)  # [tokens or texts, labels]
    moved = a.argmax(-1) != b.argmax(-1)
    two = np.sort(b, axis=-1)[moved]
    return {
        "distance": float(np.abs(a - b).max() / np.abs(b).max()),
        "decisions": len(b),
        "moved": int(moved.sum()),
        "largest_margin_of_moved": float((two[:, -1] - two[:, -2]).max() / np.abs(b).max()) if moved.any() else 0.0,
    }


def check(subject: Subject, *, dry_run: bool) -> dict[str, Any]:
    """Every candidate on one model: its distance, or why it did not run."""
    bundle, found = Bundle.load(subject.bundle), dict[str, Any]()
    eager = answers(EagerBackend(subject.load(), device="cpu"), bundle)
    for name in (each for each in CANDIDATES if COMPILED not in each):  # it compiles for a minute, and is not ours
        try:
            backend = load(name, subject, dry_run=dry_run)
        except (HvpnetError, RuntimeError) as error:
            found[name] = {"passed_over": str(error)}
            continue
        precision = next(each for each in BOUNDS if each in name)
        result = compare(answers(backend, bundle), _on_cpu(bundle, precision) if precision in QUANTISED else eager)
        found[name] = {**result, "bound": BOUNDS[precision], "passed": result["distance"] <= BOUNDS[precision]}
        backend.close()
    return found


def _on_cpu(bundle: Bundle, precision: str) -> list[Array]:
    backend = load_backend(bundle, "onnxruntime-cpu", precision=precision)
    try:
        return answers(backend, bundle)
    finally:
        backend.close()


def published(subject: Subject, golden: Path) -> float:
    """The eager model's largest distance to the published outputs, on the device that it runs on."""
    name = subject.folder.name
    with np.load(golden / f"{name}.npz", allow_pickle=False) as arrays:
        case = dict(arrays)
    scope: dict[str, Any] = {"__name__": "weights"}
    exec((golden / "weights.py").read_text("utf-8"), scope)
    meta = json.loads((golden / f"{name}.json").read_text("utf-8"))
    whole, crops = scope["images"](meta["inputs_seed"], case["objects"].tolist())
    images = np.concatenate([whole[:, None], crops], axis=1)  # [B, 4, 3, 224, 224]
    backend = EagerBackend(subject.load())
    places = {}
    if name == "mre":
        head, tail = (meta["marker_ids"][marker] for marker in ("<s>", "<o>"))
        places = {
            f"{end}_index": (case["input_ids"] == value).argmax(1) for end, value in (("head", head), ("tail", tail))
        }
    rows = [backend.encode_pictures(torch.from_numpy(row)) for row in images]
    found = backend.encode_text(TextInputs(case["input_ids"], case["attention_mask"], **places), rows)
    outputs = case["emissions" if name == "ner" else "logits"]
    kept = case["attention_mask"] == 1 if name == "ner" else slice(None)
    return float(np.abs(found[kept] - outputs[kept]).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--golden", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for name, subject in subjects(options.work).items():
        found[name] = check(subject, dry_run=options.dry_run)
        if options.golden and not options.dry_run:
            found[name]["eager fp32"]["distance_to_published"] = published(subject, options.golden)
        write_json(options.out, found)
    wrong = [
        f"{name}, {each}" for name, rows in found.items() for each, row in rows.items() if row.get("passed") is False
    ]
    if wrong:
        raise SystemExit(f"wrong answers: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
