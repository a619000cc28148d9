"""Triples of many posts as one graph: CSV for Neo4j's import, or N-Triples.

Entities of the same type whose names are the same in normal form (`normal_form`) are one node, whose name is written as
the first post has it. No other two are taken for one. Every relation that a post states is kept with the post.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from hvpnet_runtime.errors import InputError, MissingExtraError
from hvpnet_runtime.triples.pairs import normal_form

GraphFormat: TypeAlias = Literal["neo4j", "ntriples"]
"""A folder with nodes.csv and edges.csv for `neo4j-admin database import`, or a file of RDF."""

GraphWriter: TypeAlias = Callable[[Iterable[Mapping[str, Any]], Path], int]
"""Writes the graph of results, which are those of `TripleResult.to_dict` with the number of their `row`, to a new file
or folder; how many results there were."""


class Node(NamedTuple):
    """An entity of the graph: what names it, and its name as it is shown."""

    type: str
    normal: str
    name: str

    @property
    def key(self) -> str:
        """What tells it from every other."""
        return f"{self.type.replace(':', '%3A')}:{self.normal}"


class Post(NamedTuple):
    """What a relation is from: the number of its row, and its id, where it has one that is not text as JSON."""

    row: int
    id: str | None


class Edge(NamedTuple):
    """A relation, as a post states it."""

    head: Node
    relation: str
    tail: Node
    score: float
    post: Post


def check_graph_name(out: Path, form: GraphFormat) -> None:
    """Refuse a name that says another form.

    Raises:
        InputError: it does.
    """
    if form == "ntriples" and out.suffix != ".nt":
        raise InputError(f"{out} must end in .nt, for N-Triples are written")
    if form == "neo4j" and out.suffix in (".jsonl", ".ndjson", ".parquet", ".csv", ".nt"):
        raise InputError(f"{out} is to be a folder of nodes.csv and edges.csv: give it a name without {out.suffix}")


def graph_writer(form: GraphFormat) -> GraphWriter:
    """What writes a graph in this form.

    Raises:
        MissingExtraError: rdflib, which writes N-Triples, is not installed.
    """
    if form == "neo4j":
        return write_neo4j
    if find_spec("rdflib") is None:
        raise MissingExtraError("rdflib", "graph", "writing N-Triples")
    from hvpnet_runtime.triples.ntriples import write_ntriples

    return write_ntriples


def write_neo4j(results: Iterable[Mapping[str, Any]], out: Path) -> int:
    """See `GraphWriter`. The relation's type is the last part of its name: member_of of /per/org/member_of."""
    out.mkdir(exist_ok=True)
    seen, count = set[str](), 0
    with ExitStack() as files:
        nodes, edges = (
            csv.writer(
                files.enter_context((out / name).open("w", encoding="utf-8", errors="backslashreplace", newline="")),
                lineterminator="\n",
            )
            for name in ("nodes.csv", "edges.csv")
        )
        nodes.writerow(["key:ID", "name", "type", ":LABEL"])
        edges.writerow([":START_ID", ":END_ID", ":TYPE", "relation", "score:double", "post", "row:long"])
        for result in results:
            count += 1
            for node in nodes_of(result):
                if node.key not in seen:
                    seen.add(node.key)
                    nodes.writerow([node.key, node.name, node.type, "Entity"])
            for head, relation, tail, score, post in edges_of(result):
                kind = relation.rstrip("/").rpartition("/")[2] or relation
                post_id = "" if post.id is None else _visible(post.id)
                edges.writerow([head.key, tail.key, kind, relation, repr(score), post_id, post.row])
    return count


def nodes_of(result: Mapping[str, Any]) -> Iterator[Node]:
    """The entities of a post."""
    return map(_node, result["entities"])


def edges_of(result: Mapping[str, Any]) -> Iterator[Edge]:
    """The relations of a post.

    A relation that the post states of the same two nodes more than once has the best score.
    """
    given = result["id"]
    post = Post(result["row"], given if given is None or isinstance(given, str) else json.dumps(given))
    best: dict[tuple[str, str, str], Edge] = {}
    for triple in result["triples"]:
        edge = Edge(_node(triple["head"]), triple["relation"], _node(triple["tail"]), triple["score"], post)
        key = edge.head.key, edge.relation, edge.tail.key
        if key not in best or edge.score > best[key].score:
            best[key] = edge
    yield from best.values()


def _visible(text: str) -> str:
    """A text in one line: control characters are escaped as in JSON."""
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def _node(entity: Mapping[str, Any]) -> Node:
    return Node(entity["type"], normal_form(entity["text"]), " ".join(entity["text"].split()))
