"""Graphs of tiny models in which no tensor is neutral, exported once per test session."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hvpnet import HVPNeT
from hvpnet_export.bundle import write_arrays
from hvpnet_export.graphs import export_text, export_vision


@dataclass
class Exported:
    """A model, its state before any export, and the folder of a bundle with its arrays; graphs come when asked for."""

    model: HVPNeT
    before: dict[str, Tensor]
    folder: Path

    @cached_property
    def vision(self) -> Path:
        path = self.folder / "onnx" / "fp32" / "vision.onnx"
        export_vision(self.model, path)
        return path

    @cached_property
    def text(self) -> Path:
        path = self.folder / "onnx" / "fp32" / "text.onnx"
        export_text(self.model, path)
        return path

    @property
    def graphs(self) -> tuple[Path, ...]:
        return (self.vision, self.text) if self.model.config.pictures else (self.text,)


@pytest.fixture(scope="session")
def graphs_of(random_model: Callable[..., HVPNeT], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """The graphs of a random model; tests edit copies."""

    @cache
    def make(
        task: str = "ner", variant: str = "full", head: str = "markers", seed: int = 0, layers: int = 1
    ) -> Exported:
        model = random_model(task, variant, head, seed, bert={"num_hidden_layers": layers})
        exported = Exported(model, copy.deepcopy(model.state_dict()), tmp_path_factory.mktemp("bundle"))
        write_arrays(model, exported.folder)
        return exported

    return make


@pytest.fixture(scope="session")
def request_for() -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
    """Random inputs: pixels [N, 224, 224, 3], and text inputs for B tweets of T pieces, the last one full."""

    def make(model: Any, pictures: int, batch: int, length: int) -> tuple[Tensor, dict[str, Tensor]]:
        config, generator = model.config, torch.Generator().manual_seed(pictures + 10 * batch + 100 * length)
        lengths = [max(1, length - 3 * row) for row in reversed(range(batch))]
        mask = (torch.arange(length)[None] < torch.tensor(lengths)[:, None]).long()
        ids = torch.randint(0, config.bert.vocab_size, (batch, length), generator=generator)
        text = {"input_ids": ids * mask, "attention_mask": mask}
        if config.pictures:
            size = (batch, config.pictures, config.bert.num_hidden_layers, 2)
            values = config.prefix_length * config.bert.hidden_size
            text["prefix"] = torch.randn(*size, values, generator=generator)
        if config.task == "re" and config.head == "markers":
            text["head_index"] = torch.arange(batch) % torch.tensor(lengths)
            text["tail_index"] = torch.tensor(lengths) - 1
        return torch.randint(0, 256, (pictures, 224, 224, 3), generator=generator, dtype=torch.uint8), text

    return make
