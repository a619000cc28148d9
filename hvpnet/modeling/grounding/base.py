"""What every grounder is: query vectors and pictures in, the best box of each query out."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from hvpnet_runtime.bundle import GrounderKind


class Grounder(nn.Module, ABC):
    """A model that finds what a query names in a picture; `encode_queries` and `forward` are the two exported graphs.

    Attributes:
        kind: it decides how pictures reach `size` x `size`, see `hvpnet_runtime.grounding.pictures`.
        size: side S of the square input in pixels.
        query_size: values D of a query vector.
        max_length: pieces of a query, special ones included.
        tokenizer: makes pieces of queries, special ones included, without padding or truncation.
        oracle: type in which graphs are held against the model: float64 where float32 itself is too far off.
    """

    kind: ClassVar[GrounderKind]
    oracle: ClassVar[torch.dtype] = torch.float32
    size: int
    query_size: int
    max_length: int
    tokenizer: Tokenizer

    @abstractmethod
    def encode_queries(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Make vectors of queries.

        Args:
            input_ids: int64 [Q, L].
            attention_mask: int64 [Q, L], 1 = piece.

        Returns:
            Query vectors [Q, D].
        """

    @abstractmethod
    def candidates(self, images: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Every box of a picture and how well it answers each query.

        Args:
            images: uint8 [N, S, S, 3], RGB.
            queries: [N, Q, D], of `encode_queries`.

        Returns:
            boxes [N, Q, A, 4], or [N, 1, A, 4] where they are the same for every query, as (x0, y0, x1, y1) in shares
            of S, not clipped; scores [N, Q, A], larger is better.
        """

    def forward(self, images: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The best of `candidates` for each query, the first of equals: boxes [N, Q, 4], scores [N, Q]."""
        boxes, scores = self.candidates(images, queries)  # [N, Q or 1, A, 4], [N, Q, A]
        best = scores.argmax(-1, keepdim=True)  # [N, Q, 1]
        every = boxes.expand(-1, scores.shape[1], -1, -1)  # [N, Q, A, 4]
        chosen = every.gather(2, best[..., None].expand(-1, -1, -1, 4))  # [N, Q, 1, 4]
        return chosen.squeeze(2), scores.gather(-1, best).squeeze(-1)

    @torch.no_grad()
    def encode(self, texts: list[str]) -> Tensor:
        """Query vectors [Q, D] of texts, cut at `max_length` pieces."""
        self.tokenizer.enable_truncation(self.max_length)
        try:
            pieces = [each.ids for each in self.tokenizer.encode_batch(texts)]
        finally:
            self.tokenizer.no_truncation()
        longest = max(map(len, pieces))
        ids = torch.tensor([each + [0] * (longest - len(each)) for each in pieces])  # [Q, L]
        mask = torch.tensor([[1] * len(each) + [0] * (longest - len(each)) for each in pieces])  # [Q, L]
        return self.encode_queries(ids, mask)
