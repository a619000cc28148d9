"""A tiny OWL-ViT, trained from scratch in minutes on drawn figures: what shows grounding where no weights can be had.

It finds the figures of `hvpnet.data.synthetic.scattered` by their names, and those that stand for an entity type by the
type's word, too.
"""

import hvpnet.modeling.torchvision_compat  # noqa: F401  first, because transformers imports torchvision too

# isort: split

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  the field's name for it
from torchvision.ops import generalized_box_iou_loss
from transformers import CLIPTokenizer, OwlViTConfig, OwlViTForObjectDetection
from transformers.models.owlvit.image_processing_pil_owlvit import OwlViTImageProcessorPil

from hvpnet.data.synthetic.scattered import FIGURE_OF, FIGURES, FigureScene, draw_figures, picture_size
from hvpnet.modeling.grounding.owl_vit import load_owl_vit
from hvpnet_runtime.grounding.pictures import fit
from hvpnet_runtime.types import Progress

TYPE_WORDS = {"PER": "person", "LOC": "location", "ORG": "organization", "MISC": "miscellaneous"}
"""What entity types are called in queries."""

FIGURE_OF_WORD = {name: name for name in FIGURES} | {TYPE_WORDS[kind]: name for kind, name in FIGURE_OF.items()}
"""The queries that the grounder learns, and which figure each of them means."""

_SIZE, _PATCH = 128, 16  # pixels
_SHORT = 88  # least pixels of a drawn picture's shorter side
_SIDES = (0.3, 0.5)  # of a figure, as shares of the picture's shorter side
_MOST_FIGURES = 4
_DEVIATION = 0.02  # of initial weights; those of transformers' own initialisation learn nothing at this size
_NEGATIVES = 0.75  # weight of what is not in a patch, in the loss of the scores


@dataclass(frozen=True)
class Recipe:
    """How the tiny OWL-ViT is trained.

    Attributes:
        pictures: drawn once; each is seen several times.
        steps: of the optimiser.
        batch_size: pictures a step.
        lr: largest learning rate.
        seed: of pictures and weights.
    """

    pictures: int = 3000
    steps: int = 1800
    batch_size: int = 16
    lr: float = 2e-3
    seed: int = 0


def draw_for_grounding(rng: np.random.Generator) -> FigureScene:
    """A small long picture of one to four figures of any kind."""
    names = rng.permutation(list(FIGURES))[: rng.integers(1, _MOST_FIGURES + 1)].tolist()
    return draw_figures(names, picture_size(_SHORT, rng), rng, _SIDES)


def train_grounder(out: Path, progress: Progress, recipe: Recipe | None = None) -> Path:
    """Trains a tiny OWL-ViT and writes it as transformers does.

    Args:
        out: the checkpoint's folder: configuration, weights, tokeniser and the preparation of pictures.
        progress: is told how far the training is.
        recipe: of the training.

    Returns:
        `out`.
    """
    recipe = recipe or Recipe()
    rng = np.random.default_rng(recipe.seed)
    torch.manual_seed(recipe.seed)
    write_new_grounder(out)
    grounder = load_owl_vit(out).train().requires_grad_()
    progress(f"drawing {recipe.pictures} pictures of figures")
    scenes = [draw_for_grounding(rng) for _ in range(recipe.pictures)]
    images = torch.from_numpy(np.stack([fit(np.asarray(each.picture), "owl-vit", _SIZE).pixels for each in scenes]))
    shown, boxes = (torch.stack(each) for each in zip(*map(_targets, scenes), strict=True))  # [M, A], [M, A, 4]
    words = [grounder.tokenizer.encode(word).ids for word in FIGURE_OF_WORD]
    pieces = torch.tensor(words)  # [Q, L]: every word is one piece
    optimizer = torch.optim.AdamW(grounder.parameters(), lr=recipe.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, recipe.steps, pct_start=0.1)
    for step in range(recipe.steps):
        batch = torch.from_numpy(rng.integers(0, len(scenes), recipe.batch_size))
        queries = grounder.encode_queries(pieces, torch.ones_like(pieces)).expand(recipe.batch_size, -1, -1)
        loss = _loss(*grounder.proposals(images[batch], queries), shown[batch], boxes[batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(grounder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            progress(f"training the grounder: step {step + 1} of {recipe.steps}, loss {float(loss.detach()):.3f}")
    _save(grounder.model, out)
    return out


def write_new_grounder(out: Path) -> OwlViTForObjectDetection:
    """Writes an untrained model of 0.6 million parameters with all that belongs to it, and returns the model."""
    tokenizer = _tokenizer()
    size = tokenizer.vocab_size
    config = OwlViTConfig(
        text_config={
            "vocab_size": size, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 16, "bos_token_id": size - 2,
            "eos_token_id": size - 1, "pad_token_id": 0,
        },
        vision_config={
            "image_size": _SIZE, "patch_size": _PATCH, "hidden_size": 96, "intermediate_size": 288,
            "num_hidden_layers": 4, "num_attention_heads": 3,
        },
        projection_dim=64,
    )  # fmt: skip
    model = OwlViTForObjectDetection(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=_DEVIATION)
        model.class_head.logit_scale.bias.fill_(9.0)  # logits from -14 to 6, and a score of 0.02 to begin with
        model.class_head.logit_shift.bias.fill_(-0.4)
    _save(model, out)
    tokenizer.save_pretrained(out)
    OwlViTImageProcessorPil(size={"height": _SIZE, "width": _SIZE}).save_pretrained(out)
    return model


def _save(model: OwlViTForObjectDetection, out: Path) -> None:
    """Write what `save_pretrained` does, which shows a progress bar of its own."""
    model.config.save_pretrained(out)
    save_file(model.state_dict(), out / "model.safetensors", metadata={"format": "pt"})


def _tokenizer() -> CLIPTokenizer:
    """CLIP's tokeniser, with byte pairs that make one piece of each query; the end of text has the largest number."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = Tokenizer(BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.train_from_iterator(
        FIGURE_OF_WORD,
        trainers.BpeTrainer(
            vocab_size=10_000,
            min_frequency=1,
            end_of_word_suffix="</w>",
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    model = json.loads(trained.to_str())["model"]
    pieces = [*model["vocab"], *(f"{letter}</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    merges: Any = [tuple(pair) for pair in model["merges"]]  # its annotation has strings
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token="!")  # noqa: S106  of text


def _targets(scene: FigureScene) -> tuple[Tensor, Tensor]:
    """What every patch is to propose: the figure in it as its index in `FIGURES`, or -1 [A], and its box [A, 4].

    A figure is in the patch of its centre, and in those whose own centres its box holds.
    """
    cells = _SIZE // _PATCH
    shown, boxes = torch.full((cells, cells), -1), torch.zeros(cells, cells, 4)
    across = (torch.arange(cells) + 0.5) / cells  # centres [cells]
    for name, box in zip(scene.names, scene.boxes, strict=True):
        x0, y0, x1, y1 = (torch.tensor(box) / torch.tensor(scene.picture.size * 2)).tolist()
        inside = ((across > y0) & (across < y1))[:, None] & ((across > x0) & (across < x1))  # [cells, cells]
        inside[int((y0 + y1) / 2 * cells), int((x0 + x1) / 2 * cells)] = True
        shown[inside] = list(FIGURES).index(name)
        boxes[inside] = torch.tensor([x0, y0, x1, y1])
    return shown.flatten(), boxes.flatten(0, 1)


def _loss(boxes: Tensor, logits: Tensor, shown: Tensor, wanted: Tensor) -> Tensor:
    """Loss of the scores, and distance and generalised IoU of the boxes of patches with a figure.

    A score is to be the overlap of the patch's own box with the figure's (varifocal loss, CVPR 2021), so that of the
    patches with a figure the one with the best box is chosen.

    Args:
        boxes: [N, A, 4], proposed.
        logits: [N, Q, A], proposed.
        shown: figures [N, A], see `_targets`.
        wanted: their boxes [N, A, 4].
    """
    meant = torch.tensor([list(FIGURES).index(figure) for figure in FIGURE_OF_WORD.values()])  # [Q]
    held = shown >= 0  # [N, A]
    distance = F.l1_loss(boxes[held], wanted[held])
    overlap = 1 - generalized_box_iou_loss(boxes[held], wanted[held])  # [patches with a figure]
    quality = torch.zeros(shown.shape).masked_scatter(held, overlap.detach().clamp(min=0))  # [N, A]
    right = shown[:, None] == meant[:, None]  # [N, Q, A]
    target = torch.where(right, quality[:, None], 0)  # [N, Q, A]
    weight = torch.where(right, target, _NEGATIVES * torch.sigmoid(logits.detach()) ** 2)
    scores = (weight * F.binary_cross_entropy_with_logits(logits, target, reduction="none")).sum() / right.sum()
    loss: Tensor = 2 * scores + 10 * distance + 2 * (1 - overlap.mean())
    return loss
