"""One epoch of the published recipe: AdamW in two groups, linear warm-up and decay over the steps of all epochs."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  the field's name for it
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup

from hvpnet.data.examples import Example
from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.picture_features import PictureFeatures
from hvpnet.modeling.text_batches import PAD, encode, example_labels, stack_labels, stack_texts, text_encoder
from hvpnet.training.config import RunOptions

_HEAD = ("fc.", "crf.", "classifier.")


class Optimisation:
    """A model in training on the examples of a split.

    Args:
        model: changed in place; parameters that need no gradient stay as they are.
        tokenizer: of the model.
        examples: what to learn.
        features: of their pictures.
        options: of the recipe.

    Attributes:
        optimizer: AdamW.
        scheduler: of its learning rates, a step at a time.

    Raises:
        DataError: an example cannot be encoded.
    """

    def __init__(
        self,
        model: HVPNeT,
        tokenizer: Tokenizer,
        examples: Sequence[Example],
        features: PictureFeatures,
        options: RunOptions,
    ) -> None:
        self._model, self._features, self._options = model, features, options
        self._encoder = text_encoder(tokenizer, model.config)
        self._tweets = [example.tweet for example in examples]
        self._encodings = [encode(self._encoder, example) for example in examples]
        labels = model.config.labels
        self._labels = [
            example_labels(encoding, example, labels)
            for encoding, example in zip(self._encodings, examples, strict=True)
        ]
        self._device = next(model.parameters()).device
        self.optimizer = _optimizer(model, options)
        steps = options.epochs * math.ceil(len(examples) / options.batch_size)
        warmup = options.warmup_ratio * steps
        self.scheduler = get_linear_schedule_with_warmup(self.optimizer, warmup, steps)  # type: ignore[no-untyped-call]

    def restore(self, optimizer: dict[str, Any], scheduler: dict[str, Any]) -> None:
        """Takes over the state dicts of an interrupted run.

        Raises:
            ValueError: moments are of other weights; PyTorch raises errors of many kinds for other states.
        """
        self.optimizer.load_state_dict(optimizer)
        self.scheduler.load_state_dict(scheduler)
        for parameter, moments in self.optimizer.state.items():
            shapes = {value.shape for value in moments.values() if isinstance(value, Tensor) and value.dim()}
            if shapes - {parameter.shape}:
                raise ValueError(f"moments of shapes {shapes} for a weight of {parameter.shape}")

    def epoch(self, number: int, *, progress: bool = True) -> float:
        """Trains one epoch; its order of examples and its dropout depend on the seed and its number alone.

        Args:
            number: from 1.
            progress: show a bar, if stderr is a terminal.

        Returns:
            The mean loss of its steps.
        """
        torch.manual_seed(self._options.seed + number)
        self._model.train()
        if self._model.config.pictures:
            self._model.image_model.eval()
        order, size = torch.randperm(len(self._encodings)).tolist(), self._options.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        title = f"epoch {number} of {self._options.epochs}"
        total = 0.0
        for rows in tqdm(batches, title, leave=False, disable=None if progress else True):
            loss = self._loss(rows)
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
            total += loss.item()
        return total / len(batches)

    def _loss(self, rows: Sequence[int]) -> Tensor:
        """Negative log-likelihood of the gold tags, or cross entropy of the relation, mean over the batch."""
        model = self._model
        text = stack_texts(self._encoder, [self._encodings[row] for row in rows], self._device)
        outputs = model(**text, prefix=self._features.prefix(model, [self._tweets[row] for row in rows]))
        labels = [self._labels[row] for row in rows]
        if model.config.task == "re":
            return F.cross_entropy(outputs, stack_labels(labels, 0, self._device)[:, 0])
        gold = stack_labels(labels, model.config.labels.index(PAD), self._device)  # [B, T]
        likelihood: Tensor = model.crf(outputs, gold, mask=text["attention_mask"].bool(), reduction="mean")
        return -likelihood


def _optimizer(model: HVPNeT, options: RunOptions) -> torch.optim.AdamW:
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    head = [parameter for name, parameter in trained.items() if name.startswith(_HEAD)]
    encoders = [parameter for name, parameter in trained.items() if not name.startswith(_HEAD)]
    return torch.optim.AdamW(
        [{"params": encoders, "lr": options.lr}, {"params": head, "lr": options.head_lr}],
        weight_decay=options.weight_decay,
    )
