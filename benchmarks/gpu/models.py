"""The models that are checked and timed: a checkpoint, its bundle, and the work of a run of it.

They are the golden checkpoints of the published code where these are at hand, else a model of the same size with random
weights; tiny ones in a dry run.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from full_size import new_model, vocabulary
from keeping import write_json
from places import SHARED
from torch.utils.flop_counter import FlopCounterMode

from hvpnet import BertConfig, HVPNeT, HVPNeTConfig, ResNetConfig, load_checkpoint, save_checkpoint
from hvpnet.data import NER_LABELS, Sizes, load_split, write_picture_tweets, write_tokenizer
from hvpnet.modeling.infer_config import Hints, read_labels
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet_export import CalibrationData, IncompleteError, export_bundle
from hvpnet_runtime.bundle import Bundle, Manifest, Precision, Task

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
LENGTHS = (32, 80, 128)
_RELATIONS = ("/per/per/peer", "/per/org/member_of", "None")


@dataclass(frozen=True)
class Subject:
    """One model in the folder of the run."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    def load(self) -> HVPNeT:
        """The checkpoint in PyTorch; a published one does not say its labels, its bundle does."""
        manifest = Manifest.from_dict(json.loads((self.bundle / "manifest.json").read_text("utf-8")))
        return load_checkpoint(self.checkpoint, Hints.of_bundle(manifest))

    @property
    def gflop(self) -> dict[str, float]:
        """GFLOP of one picture, `vision`, and of a text with its prefixes by its pieces, `32`."""
        found: dict[str, float] = json.loads((self.folder / "gflop.json").read_text("utf-8"))
        return found


def find_golden() -> Path | None:
    """The golden cases beside the checkout."""
    return SHARED / "golden" if (SHARED / "golden").is_dir() else None


def model_names(golden: Path | None, *, dry_run: bool) -> list[str]:
    """The models of a run; the first is timed."""
    return ["ner", "mre"] if golden and not dry_run else ["ner"]


def subjects(work: Path) -> dict[str, Subject]:
    """What was made, by name."""
    return {path.parent.name: Subject(path.parent) for path in sorted(work.glob("*/gflop.json"), reverse=True)}


def published_labels(name: str, golden: Path) -> tuple[str, ...]:
    """What a published checkpoint does not say itself."""
    labels = json.loads((golden / f"{name}.json").read_text("utf-8")).get("labels")
    return tuple(labels) if labels else read_labels(golden / "tweets/rel2id.json")


def make(name: str, work: Path, golden: Path | None, *, dry_run: bool) -> None:
    """One model: checkpoint, bundle with FP32 and FP16 graphs (INT8 too, where it is timed), and the work of a run."""
    subject = Subject(work / name)
    subject.folder.mkdir()
    words = vocabulary() if not dry_run else write_tokenizer(subject.folder / "tokenizer")
    task: Task = "ner" if name == "ner" else "re"
    tokenizer = load_tokenizer(words, task)
    if dry_run:
        save_checkpoint(tiny_model(task, tokenizer.get_vocab_size()), subject.checkpoint)
    elif golden:
        command = [sys.executable, str(golden / "weights.py"), str(golden / f"{name}.json"), str(subject.checkpoint)]
        subprocess.run(command, check=True)
    else:
        save_checkpoint(new_model(), subject.checkpoint)
    hints = Hints(labels=published_labels(name, golden)) if golden and not dry_run else Hints()
    model = load_checkpoint(subject.checkpoint, hints)
    precisions, data = PRECISIONS, None
    if name == model_names(golden, dry_run=dry_run)[0] and (dry_run or builds_engines()):
        precisions, data = (*PRECISIONS, "int8_fp16"), calibration(subject.folder / "data", model)
    try:
        export_bundle(model, tokenizer, subject.bundle, precisions=precisions, calibration=data, keep_going=True)
    except IncompleteError as error:  # decisions of random weights are close calls, so that INT8 may fail
        print(error, file=sys.stderr)
    missing = set(PRECISIONS) - set(Bundle.load(subject.bundle).manifest.precision)
    if missing:
        raise SystemExit(f"the {', '.join(missing)} graphs of {name} are not within bounds of eager PyTorch")
    write_json(subject.folder / "gflop.json", count(model))


def builds_engines() -> bool:
    """Whether one of TensorRT's libraries is installed, which alone run INT8 on a GPU."""
    return any(find_spec(name) for name in ("tensorrt", "tensorrt_rtx"))


def calibration(folder: Path, model: HVPNeT) -> CalibrationData:
    """A few drawn tweets, which set the ranges of INT8."""
    write_picture_tweets(folder, model.config.task, Sizes(train=16, dev=1, test=1))
    return CalibrationData.choose(load_split(folder, "train"), model.config)


@torch.no_grad()
def count(model: HVPNeT) -> dict[str, float]:
    """GFLOP of one picture and of one text of each length, two for a product and its addition."""
    found, longest = {}, model.config.max_length
    with FlopCounterMode(display=False) as counter:
        prefix = model.encode_pictures(torch.zeros(1, 3, 224, 224))
    found["vision"] = counter.get_total_flops() / 1e9
    for length in (min(each, longest) for each in LENGTHS):
        ids = torch.ones(1, length, dtype=torch.int64)
        places = {} if model.config.task == "ner" else dict.fromkeys(("head_index", "tail_index"), torch.ones(1).long())
        with FlopCounterMode(display=False) as counter:
            model(input_ids=ids, attention_mask=ids, prefix=prefix[None].repeat(1, 4, 1, 1, 1), **places)
        found[str(length)] = counter.get_total_flops() / 1e9
    return found


def tiny_model(task: Task, words: int) -> HVPNeT:
    """A model of two layers, for dry runs."""
    torch.manual_seed(0)
    bert = BertConfig(words, 64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
    return HVPNeT(
        HVPNeTConfig(
            task=task,
            labels=NER_LABELS if task == "ner" else _RELATIONS,
            bert=bert,
            resnet=ResNetConfig(block="basic", layers=(1, 1, 1, 1)),
            projection_size=48,
            max_length=128,
        )
    ).eval()


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Pixels of noise, uint8 [count, 224, 224, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, 224, 224, 3), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--golden", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--name", help="only this one")
    options = parser.parse_args()
    if options.name:
        make(options.name, options.work, options.golden, dry_run=options.dry_run)
        return
    command = [sys.executable, "-P", *sys.argv]
    with ThreadPoolExecutor() as pool:  # exports run for a minute each, mostly on one core
        names = model_names(options.golden, dry_run=options.dry_run)
        for done in [pool.submit(subprocess.run, [*command, "--name", name], check=True) for name in names]:
            done.result()


if __name__ == "__main__":
    main()
