"""What a benchmark found, and its JSON form."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hvpnet.bench.accuracy import Accuracy
from hvpnet.bench.measuring import Measurement, Topic
from hvpnet.bench.statistics import Ratio
from hvpnet.bench.variants import BASELINE, Variant
from hvpnet.bench.workers import Start
from hvpnet.bench.workload import Case

SCHEMA = 1
_DIGITS = 6


@dataclass(frozen=True)
class Scored:
    """Accuracy on a split.

    Attributes:
        data: the folder's name.
        split: train, dev or test.
        tweets: in it.
        variants: the baseline first.
    """

    data: str
    split: str
    tweets: int
    variants: tuple[Accuracy, ...]


@dataclass(frozen=True)
class Results:
    """Everything that a report shows.

    Attributes:
        machine: see `describe_machine`.
        model: task, variant, sizes, and bytes on the disk.
        measurements: every variant on every case.
        starts: fresh processes, the same number for every variant, taking turns.
        peak_bytes: of every variant's process after all cases; None where the system does not say.
        passed_over: by name of the variant, why it was not timed, or not further.
        scored: None if no data were given.
    """

    machine: Mapping[str, Any]
    model: Mapping[str, Any]
    measurements: tuple[Measurement, ...]
    starts: Mapping[Variant, tuple[Start, ...]]
    peak_bytes: Mapping[Variant, int | None]
    passed_over: Mapping[str, str]
    scored: Scored | None

    @property
    def headline(self) -> list[Measurement]:
        """Every variant on one tweet with new pictures, the baseline first."""
        new = self.measurements[0].case
        return [each for each in self.measurements if each.case == new]

    def of(self, *topics: Topic) -> dict[Case, list[Measurement]]:
        """The measurements of these groups, by case."""
        cases: dict[Case, list[Measurement]] = {}
        for each in self.measurements:
            if each.topic in topics:
                cases.setdefault(each.case, []).append(each)
        return cases

    def start_speedup(self, variant: Variant) -> Ratio:
        """Imports and loading: the baseline's over this variant's, start by start."""
        baseline, own = ([start.ready for start in self.starts[each]] for each in (BASELINE, variant))
        return Ratio.of(baseline, own)

    def to_dict(self) -> dict[str, Any]:
        """JSON types; latencies in milliseconds, starts in seconds, to six digits."""
        values = {
            "schema": SCHEMA,
            "machine": dict(self.machine),
            "model": dict(self.model),
            "passed_over": dict(self.passed_over),
            "measurements": [asdict(each) for each in self.measurements],
            "starts": [
                {"variant": asdict(variant), "starts": [asdict(start) for start in starts]}
                | {"speedup": asdict(self.start_speedup(variant))}
                for variant, starts in self.starts.items()
            ],
            "peak_bytes": {variant.name: peak for variant, peak in self.peak_bytes.items()},
            "accuracy": self.scored and asdict(self.scored),
        }
        rounded: dict[str, Any] = _rounded(values)
        return rounded


def _rounded(value: Any) -> Any:  # noqa: ANN401  JSON
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
