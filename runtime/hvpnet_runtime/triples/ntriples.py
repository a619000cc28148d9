"""A graph as N-Triples, written by rdflib."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rdflib import DCTERMS, PROV, RDF, RDFS, Graph, Literal, URIRef

from hvpnet_runtime.triples.graph import Edge, Node, edges_of, nodes_of

NAMESPACE = "urn:hvpnet:"

_SERIALISED = 1000  # posts at a time


def write_ntriples(results: Iterable[Mapping[str, Any]], out: Path) -> int:
    """See `GraphWriter`. Each relation is a triple, and a statement about it has its score and the post it is from."""
    seen, count, rest = set[str](), 0, iter(results)
    with out.open("wb") as file:
        while some := list(islice(rest, _SERIALISED)):
            graph = Graph()
            for result in some:
                new = [node for node in nodes_of(result) if node.key not in seen]
                for node in reversed(new):  # of those with one key, the first in the post stays
                    _describe(graph, node)
                seen.update(node.key for node in new)
                for edge in edges_of(result):
                    _state(graph, edge)
            count += len(some)
            lines = graph.serialize(format="nt", encoding="utf-8").splitlines(keepends=True)
            file.writelines(sorted(line for line in lines if line.strip()))
    return count


def _describe(graph: Graph, node: Node) -> None:
    graph.set((_entity(node), RDF.type, _iri("type", node.type)))
    graph.set((_entity(node), RDFS.label, Literal(node.name)))


def _state(graph: Graph, edge: Edge) -> None:
    head, relation, tail = (
        _entity(edge.head),
        _iri("relation", *filter(None, edge.relation.split("/"))),
        _entity(edge.tail),
    )
    graph.add((head, relation, tail))
    post = _iri("post", str(edge.post.row) if edge.post.id is None else f"{edge.post.row} {edge.post.id}")
    parts = (edge.head.key, edge.relation, edge.tail.key, post)
    statement = _iri("statement", sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:32])
    graph.add((statement, RDF.type, RDF.Statement))
    graph.add((statement, RDF.subject, head))
    graph.add((statement, RDF.predicate, relation))
    graph.add((statement, RDF.object, tail))
    graph.add((statement, PROV.wasDerivedFrom, post))
    graph.add((post, _iri("row"), Literal(edge.post.row)))
    if edge.post.id is not None:
        graph.add((post, DCTERMS.identifier, Literal(_text(edge.post.id))))
    graph.add((statement, _iri("score"), Literal(edge.score)))


def _text(given: str) -> str:
    """A text without halves of surrogate pairs, which are escaped as in Python."""
    return given.encode(errors="backslashreplace").decode()


def _entity(node: Node) -> URIRef:
    return _iri("entity", node.type, node.normal)


def _iri(*parts: str) -> URIRef:
    return URIRef(NAMESPACE + "/".join(quote(part, safe="", errors="surrogatepass") for part in parts))
