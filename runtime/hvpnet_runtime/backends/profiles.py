"""Which shapes graphs are run at, and engines are built for: lengths of texts, batches of one and of many."""

from dataclasses import dataclass

from hvpnet_runtime.backends.base import LENGTHS, MAX_PICTURES, power_of_two
from hvpnet_runtime.backends.grounder import MAX_GROUNDED
from hvpnet_runtime.bundle import GraphName, GraphSpec, GrounderSpec
from hvpnet_runtime.errors import BackendError

_TWEET = 4
"""Pictures of a tweet that has all its objects."""


@dataclass(frozen=True)
class Profile:
    """An optimisation profile.

    Attributes:
        batch: fewest, expected and most rows.
        length: pieces of every text, or queries of every picture of a grounder; None for pictures.
    """

    batch: tuple[int, int, int]
    length: int | None = None

    def shapes(self, spec: GraphSpec) -> dict[str, list[tuple[int, ...]]]:
        """Smallest, expected and largest shape of every input of a graph."""
        by_rows = [spec.input_shapes(rows, self.length) for rows in self.batch]
        return {tensor.name: [shapes[tensor.name] for shapes in by_rows] for tensor in spec.inputs}


@dataclass(frozen=True)
class Bucket:
    """The shape that a request is padded to, and the profile it runs under."""

    rows: int
    length: int | None
    profile: int


def most_rows(profiles: tuple[Profile, ...]) -> int:
    """Rows of the largest batch that an engine was built for."""
    return max(profile.batch[2] for profile in profiles)


def every_bucket(profiles: tuple[Profile, ...]) -> set[Bucket]:
    """All that `choose_bucket` can answer."""
    most = most_rows(profiles)
    rows = {1 << power for power in range(most.bit_length())} | {most}
    lengths = {profile.length for profile in profiles}
    return {choose_bucket(profiles, count, length) for count in rows for length in lengths}


def text_lengths(max_length: int) -> tuple[int, ...]:
    """Lengths that texts are padded to."""
    return (*(length for length in LENGTHS if length < max_length), max_length)


def text_profiles(max_length: int, max_batch: int) -> tuple[Profile, ...]:
    """Every length bucket, for one text and for up to `max_batch`."""
    return tuple(Profile(batch, length) for length in text_lengths(max_length) for batch in _batches(max_batch))


def vision_profiles(max_pictures: int = MAX_PICTURES) -> tuple[Profile, ...]:
    """One picture, those of one tweet (its own and three objects), and up to `max_pictures`."""
    one, *many = _batches(max_pictures)
    tweet = [(_TWEET, _TWEET, _TWEET)] if max_pictures > _TWEET else []
    return tuple(Profile(batch) for batch in (one, *tweet, *many))


def grounder_profiles(spec: GrounderSpec, most_queries: int) -> dict[GraphName, tuple[Profile, ...]]:
    """Profiles of a grounder's engines: for the fixed queries, or for buckets of up to `most_queries` of the text."""
    if spec.queries == "fixed":
        return {"grounder": tuple(Profile(batch, len(spec.words)) for batch in _batches(MAX_GROUNDED))}
    counts = [count for count in (4, 8) if count < most_queries] + [most_queries]
    return {
        "grounder": tuple(Profile(batch, count) for count in counts for batch in _batches(MAX_GROUNDED)),
        "queries": (Profile((1, min(4, most_queries), most_queries), spec.max_length),),
    }


def choose_bucket(profiles: tuple[Profile, ...], rows: int, length: int | None = None) -> Bucket:
    """The smallest bucket that holds a request: rows up to the next power of two, the length to its bucket.

    Raises:
        BackendError: no shape holds so many rows, or texts so long.
    """
    power = power_of_two(rows)
    fitting = [
        (profile.length or 0, min(max(power, least), most), most, index)
        for index, profile in enumerate(profiles)
        for least, _, most in (profile.batch,)
        if most >= rows and (length is None or (profile.length or 0) >= length)
    ]
    if not fitting:
        longest = max(profile.length or 0 for profile in profiles)
        asked, most = (f"{rows} rows", f"{most_rows(profiles)} rows")
        if length is not None:
            asked, most = f"{asked} of {length} pieces", f"{most} of {longest} pieces"
        raise BackendError(f"{asked} were asked for, and the largest shape that is run has {most}")
    _, padded, _, index = min(fitting)
    return Bucket(padded, profiles[index].length, index)


def _batches(most: int) -> list[tuple[int, int, int]]:
    """One row has a profile of its own: its fastest kernels are others than those of a batch."""
    return [(1, 1, 1)] + ([(2, min(8, most), most)] if most > 1 else [])
