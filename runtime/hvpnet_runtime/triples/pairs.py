"""Which pairs of a post's entities are asked about."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from hvpnet_runtime.types import Entity

MAX_PAIRS = 56
"""Default of the pairs of one post: all of eight entities."""


def normal_form(text: str) -> str:
    """How two names are compared: compatible characters (NFKC), capitals and white space do not count."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def same_node(entity: Entity) -> tuple[str, str]:
    """What entities have in common that are the same node of a graph: their type, and their name in normal form."""
    return entity.type, normal_form(entity.text)


def choose_pairs(
    entities: Sequence[Entity], asks: Callable[[str, str], bool], limit: int
) -> tuple[list[tuple[int, int]], int]:
    """Ordered pairs (head, tail) of different entities, by index.

    Args:
        entities: of a post, in order of appearance.
        asks: whether there is anything to ask about a head and a tail of these types.
        limit: pairs at most: those with the fewest entities between them that may have any pair, and among these the
            first in the text.

    Returns:
        The pairs, in the order of their heads, then of their tails; and how many there are beyond the limit.
    """
    nodes = [same_node(entity) for entity in entities]
    types, same = Counter(entity.type for entity in entities), Counter(nodes)
    total = sum(types[head] * types[tail] for head in types for tail in types if asks(head, tail))
    total -= sum(count**2 for (kind, _), count in same.items() if asks(kind, kind))
    asked = {kind for head in types for tail in types if asks(head, tail) for kind in (head, tail)}
    places = [place for place, entity in enumerate(entities) if entity.type in asked]
    pairs: list[tuple[int, int]] = []
    for first, second in _nearest_first(len(places)):
        if len(pairs) == min(limit, total):
            break
        head, tail = places[first], places[second]
        if nodes[head] != nodes[tail] and asks(entities[head].type, entities[tail].type):
            pairs.append((head, tail))
    return sorted(pairs), total - len(pairs)


def _nearest_first(count: int) -> Iterator[tuple[int, int]]:
    for distance in range(1, count):
        for first in range(count - distance):
            yield first, first + distance
            yield first + distance, first
