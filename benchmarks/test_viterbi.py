"""Viterbi against pytorch-crf's decode, batch 32, 128 tokens, 13 labels; the tags are the same, ties included."""

import numpy as np
import pytest
import torch
from pairing import paired
from pytest_benchmark.fixture import BenchmarkFixture
from torchcrf import CRF

from hvpnet_runtime.decoding.crf import CrfDecoder

BATCH, LENGTH, LABELS = 32, 128, 13


@pytest.mark.parametrize("torch_threads", [1, 2])
def test_viterbi(benchmark: BenchmarkFixture, torch_threads: int) -> None:
    rng = np.random.default_rng(0)
    shapes = {"start_transitions": (LABELS,), "end_transitions": (LABELS,), "transitions": (LABELS, LABELS)}
    scores = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    emissions = rng.normal(size=(BATCH, LENGTH, LABELS)).astype(np.float32)
    mask = np.ones((BATCH, LENGTH), bool)
    decoder = CrfDecoder(**scores)
    crf = CRF(LABELS, batch_first=True)
    crf.load_state_dict({name: torch.from_numpy(array) for name, array in scores.items()})
    tensors = torch.from_numpy(emissions), torch.from_numpy(mask)

    def ours() -> list[list[int]]:
        return decoder.decode(emissions, mask)

    @torch.inference_mode()
    def theirs() -> list[list[int]]:
        tags: list[list[int]] = crf.decode(*tensors)
        return tags

    before = torch.get_num_threads()
    torch.set_num_threads(torch_threads)
    try:
        assert ours() == theirs()
        paired(benchmark, ours, theirs, rounds=30, calls=10)
    finally:
        torch.set_num_threads(before)
