"""Which relations the types of two entities allow, where the relations' names say so, as those of MNRE do."""

import re
from collections.abc import Mapping, Sequence

from hvpnet_runtime.errors import InputError, brief
from hvpnet_runtime.labels import NO_RELATION, bio_tag

_TYPED = re.compile(r"/([^/]+)/([^/]+)/.+")
"""The type of the head, of the tail, and what relates them: /per/org/member_of (MNRE)."""


def entity_types(labels: Sequence[str]) -> tuple[str, ...]:
    """The types that labels of entities know, each once."""
    return tuple(dict.fromkeys(tag[2:] for label in labels if (tag := bio_tag(label))[2:]))


def relation_types(relation: str) -> tuple[str, str] | None:
    """The types of head and tail that a relation's name carries, case-folded; None where it carries none."""
    match = _TYPED.fullmatch(relation)
    return None if match is None else (match[1].casefold(), match[2].casefold())


class Agreement:
    """What may be asked about two entities, and answered. Capitals of types do not count.

    Relations whose names carry no types are allowed between any, and so is the none class.

    Args:
        relations: by index.
        types: of the entities.
        any_types: whether every relation is allowed between any.

    Raises:
        InputError: a relation's name carries a type that entities do not have: no pair could be asked about it.
    """

    def __init__(self, relations: Sequence[str], types: Sequence[str], *, any_types: bool = False) -> None:
        self._types = {} if any_types else {name: relation_types(name) for name in relations}
        known = {kind.casefold() for kind in types}
        for name, pair in self._types.items():
            for kind in pair or ():
                if kind not in known:
                    raise InputError(
                        f"the relation {brief(name)} is between types, and {kind} is none of the entities', which are"
                        f" {', '.join(types)}: take bundles that belong together, or any_types=True"
                    )
        self._asked = {self._types.get(name) for name in relations if name != NO_RELATION}

    def asks(self, head: str, tail: str) -> bool:
        """Whether any relation but the none class may hold between entities of these types."""
        return None in self._asked or (head.casefold(), tail.casefold()) in self._asked

    def choose(self, probabilities: Mapping[str, float], head: str, tail: str) -> str:
        """The first relation that the types of head and tail allow.

        Args:
            probabilities: of every relation, the most probable first.
            head: type of the head.
            tail: type of the tail; the pair is one that `asks` says yes to.
        """
        pair = head.casefold(), tail.casefold()
        return next(name for name in probabilities if self._types.get(name) in (None, pair))
