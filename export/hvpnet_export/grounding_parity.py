"""Hold the graphs of a grounder against the eager model: on values, and on which box is chosen.

The yardstick is the eager model in `Grounder.oracle`, float64 where float32 itself is off. A graph may then be a few
times as far off as the eager model in float32 is, and never needs to be closer than rounding lets it. It must choose
the box that the oracle chooses, or one that the oracle scores as well within that error.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hvpnet.modeling.grounding.base import Grounder
from hvpnet_export.errors import ParityError
from hvpnet_runtime.bundle import Precision

Case: TypeAlias = tuple[Tensor, Tensor]
"""Pictures uint8 [N, S, S, 3] and queries float32 [N, Q, D]."""

Ground: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A graph that takes a case and answers with boxes [N, Q, 4] and scores [N, Q]."""

Encode: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A graph that takes pieces and mask, int64 [Q, L], and answers with queries [Q, D]."""

FACTOR = 4.0
"""How many times the error of the eager model in float32 a graph's may be."""

BOX_FLOORS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 0.02}
"""Error of boxes that is allowed anyway, as a share of the input's side, or of the box where that reaches further."""

SCORE_FLOORS: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.1}
"""Error of scores that is allowed anyway, relative to the best score: that of a logit, where scores are small."""

QUERY_FLOORS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 0.02}
"""Error of query vectors that is allowed anyway, relative to the length of the vector."""


@dataclass(frozen=True)
class GroundingReport:
    """What was compared and how far apart it came out.

    Attributes:
        box_bound: on `box_error`.
        score_bound: on `score_error`.
        query_bound: on `query_error`.
        box_error: largest distance of an edge from that of the oracle's choice, or of a tie, as a share of S, or of the
            box's furthest edge where that lies beyond.
        score_error: largest error of a score, relative to the oracle's best one.
        query_error: largest error of a query vector, relative to its length; 0 where no encoder was compared.
        decisions: boxes that were chosen.
        differing: those that are not the oracle's choice, ties included.
        wrong: those that are no tie either.
    """

    box_bound: float
    score_bound: float
    query_bound: float
    box_error: float
    score_error: float
    query_error: float
    decisions: int
    differing: int
    wrong: int

    @property
    def passed(self) -> bool:
        """Values within their bounds, and no decision wrong."""
        errors = (
            (self.box_error, self.box_bound), (self.score_error, self.score_bound), (self.query_error, self.query_bound)
        )  # fmt: skip
        return not self.wrong and all(error <= bound for error, bound in errors)  # so not for NaN

    @property
    def summary(self) -> str:
        """One line for people."""
        return (
            f"boxes within {self.box_error:.1e} of the side, scores within {self.score_error:.1e}, queries within"
            f" {self.query_error:.1e} of eager PyTorch, {self.differing} of {self.decisions} boxes are others"
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {"passed": self.passed, **asdict(self)}

    def require(self) -> "GroundingReport":
        """Return the report.

        Raises:
            ParityError: a value or a decision is off.
        """
        if not self.passed:
            bounds = f"{self.box_bound:.1e}, {self.score_bound:.1e} and {self.query_bound:.1e}"
            raise ParityError(f"the grounder's graphs differ too much (bounds {bounds}): {self.summary}")
        return self


@torch.no_grad()
def compare_grounder(
    grounder: Grounder,
    ground: Ground,
    encode: Encode | None = None,
    precision: Precision = "fp32",
    cases: Iterable[Case] | None = None,
) -> GroundingReport:
    """Run the eager model and graphs on the same inputs.

    Args:
        grounder: the eager model in float32, in evaluation mode.
        ground: runs grounder.onnx.
        encode: runs queries.onnx; None for fixed queries.
        precision: of the graphs.
        cases: by default `random_grounding_cases`.

    Raises:
        ParityError: a graph answers in another shape.
    """
    oracle = grounder if grounder.oracle is torch.float32 else copy.deepcopy(grounder).to(grounder.oracle)
    query_error, query_bound = _compare_queries(grounder, oracle, encode, QUERY_FLOORS[precision])
    outcomes = [
        _compare(grounder, oracle, ground, case, (BOX_FLOORS[precision], SCORE_FLOORS[precision]))
        for case in (random_grounding_cases(grounder) if cases is None else cases)
    ]
    boxes, scores, differing = (torch.cat(each) for each in zip(*(each[2:] for each in outcomes), strict=True))
    box_bound, score_bound = max(each[0] for each in outcomes), max(each[1] for each in outcomes)
    return GroundingReport(
        box_bound,
        score_bound,
        query_bound,
        box_error=_largest(boxes),
        score_error=_largest(scores),
        query_error=query_error,
        decisions=boxes.numel(),
        differing=int(differing.sum()),
        wrong=int((~(boxes <= box_bound)).sum()),
    )


def random_grounding_cases(grounder: Grounder, seed: int = 0) -> Iterator[Case]:
    """Draw one or two pictures, of soft blotches or of noise, and one to four queries of random pieces for each."""
    generator = torch.Generator().manual_seed(seed)
    for pictures, queries, cells in ((1, 4, 8), (2, 1, 5), (1, 2, grounder.size)):
        small = torch.rand(pictures, 3, cells, cells, generator=generator)
        large = torch.nn.functional.interpolate(small, size=(grounder.size, grounder.size), mode="bilinear")
        images = (large * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()  # [N, S, S, 3]
        ids, mask = _random_pieces(grounder, pictures * queries, generator)
        vectors = grounder.encode_queries(ids, mask).detach()  # [N * Q, D]
        yield images, vectors.reshape(pictures, queries, -1)


def _random_pieces(grounder: Grounder, queries: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pieces and mask, int64 [Q, L], of queries that get shorter by one piece each."""
    special = grounder.tokenizer.encode("").ids  # of no words: what begins and ends a query
    length = grounder.max_length
    lengths = (length - torch.arange(queries)).clamp(min=min(length, len(special) + 1))
    ids = torch.randint(1, grounder.tokenizer.get_vocab_size(), (queries, length), generator=generator)
    mask = (torch.arange(length)[None] < lengths[:, None]).long()
    if special:
        ids = torch.where(ids == special[-1], 1, ids)
        ids[:, 0] = special[0]
        ids[torch.arange(queries), lengths - 1] = special[-1]
    return ids * mask, mask


def _compare_queries(grounder: Grounder, oracle: Grounder, encode: Encode | None, floor: float) -> tuple[float, float]:
    """Error of the encoder's graph, and its bound."""
    if encode is None:
        return 0.0, floor
    generator = torch.Generator().manual_seed(1)
    error, bound = 0.0, floor
    for queries in (1, 5):
        ids, mask = _random_pieces(grounder, queries, generator)
        wanted, found = oracle.encode_queries(ids, mask), encode(ids, mask)
        own = wanted if oracle is grounder else grounder.encode_queries(ids, mask)
        _check_shape("queries", found, wanted)
        length = wanted.norm(dim=-1, keepdim=True)  # [Q, 1]
        bound = max(bound, FACTOR * _largest((own - wanted).norm(dim=-1, keepdim=True) / length))
        error = max(error, _largest((found - wanted).norm(dim=-1, keepdim=True) / length))
    return error, bound


def _compare(
    grounder: Grounder, oracle: Grounder, ground: Ground, case: Case, floors: tuple[float, float]
) -> tuple[float, float, Tensor, Tensor, Tensor]:
    """Bounds of boxes and scores for a case, and by decision [N * Q] the error of both and whether it is another."""
    images, queries = case
    box, score = ground(images, queries)  # [N, Q, 4], [N, Q]
    boxes, scores = oracle.candidates(images, queries.to(grounder.oracle))  # [N, Q or 1, A, 4], [N, Q, A]
    own_boxes, own_scores = (boxes, scores) if oracle is grounder else grounder.candidates(images, queries)
    _check_shape("scores", score, scores[..., 0])
    _check_shape("boxes", box, boxes[:, :1, 0].expand(-1, scores.shape[1], -1))
    best = scores.max(dim=-1)  # [N, Q]
    reach = boxes.abs().amax(dim=-1).clamp(min=1)  # [N, Q or 1, A]; untrained models make boxes many sides long
    box_bound = max(floors[0], FACTOR * _largest((own_boxes - boxes) / reach[..., None]))
    score_bound = max(floors[1], FACTOR * _largest((own_scores - scores) / best.values[..., None]))
    # The graph's score and that of the oracle's choice may both be off: hence twice the bound.
    tied = scores >= best.values[..., None] * (1 - 2 * score_bound)  # [N, Q, A]
    distance = (boxes - box[:, :, None]).abs().amax(dim=-1) / reach  # [N, Q, A]
    nearest = torch.where(tied, distance, torch.inf).min(dim=-1)  # [N, Q]
    score_error = (score - scores.gather(-1, nearest.indices[..., None])[..., 0]).abs() / best.values
    differing = ~(distance.gather(-1, best.indices[..., None])[..., 0] <= box_bound)
    return box_bound, score_bound, nearest.values.flatten(), score_error.flatten(), differing.flatten()


def _check_shape(what: str, found: Tensor, wanted: Tensor) -> None:
    if found.shape != wanted.shape:
        raise ParityError(f"a graph answers {what} {list(found.shape)}, the eager model {list(wanted.shape)}")


def _largest(errors: Tensor) -> float:
    """The largest magnitude; NaN counts as the largest float, as JSON has no NaN."""
    return float(errors.abs().float().nan_to_num(nan=torch.finfo(torch.float32).max).max())
