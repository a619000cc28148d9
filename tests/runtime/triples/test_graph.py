"""Graphs of results that are written here by hand."""

import csv
from pathlib import Path
from typing import Any

import pytest
from rdflib import DCTERMS, PROV, RDF, RDFS, Graph, URIRef

from hvpnet_runtime import InputError
from hvpnet_runtime.triples.graph import Node, check_graph_name, write_neo4j
from hvpnet_runtime.triples.ntriples import write_ntriples


def entity(text: str, kind: str) -> dict[str, Any]:
    return {"text": text, "type": kind, "start": 0, "end": 1, "first_word": 0, "last_word": 0, "score": 0.5}


def triple(head: dict[str, Any], relation: str, tail: dict[str, Any], score: float) -> dict[str, Any]:
    return {"head": head, "relation": relation, "tail": tail, "score": score, "probabilities": {relation: score}}


MESSI, LOUD, BARCA = entity("Lionel  Messi", "PER"), entity("LIONEL MESSI", "PER"), entity('Barça, "FC"', "ORG")
PLACE = entity("lionel messi", "LOC")
RESULTS = [
    {"row": 1, "id": "a/1", "entities": [MESSI, BARCA], "triples": [triple(MESSI, "/per/org/member_of", BARCA, 0.75)]},
    {"row": 2, "id": None, "entities": [], "triples": []},
    {
        "row": 4,
        "id": None,
        "entities": [LOUD, BARCA, PLACE],
        "triples": [
            triple(LOUD, "/per/org/member_of", BARCA, 0.25),
            triple(MESSI, "/per/org/member_of", BARCA, 0.5),
            triple(BARCA, "founder", PLACE, 0.125),
        ],
    },
]


def rows(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.reader(opened))


def test_neo4j(tmp_path: Path) -> None:
    assert write_neo4j(RESULTS, tmp_path / "graph") == 3
    assert rows(tmp_path / "graph" / "nodes.csv") == [
        ["key:ID", "name", "type", ":LABEL"],
        ["PER:lionel messi", "Lionel Messi", "PER", "Entity"],
        ['ORG:barça, "fc"', 'Barça, "FC"', "ORG", "Entity"],
        ["LOC:lionel messi", "lionel messi", "LOC", "Entity"],
    ]
    assert rows(tmp_path / "graph" / "edges.csv") == [
        [":START_ID", ":END_ID", ":TYPE", "relation", "score:double", "post", "row:long"],
        ["PER:lionel messi", 'ORG:barça, "fc"', "member_of", "/per/org/member_of", "0.75", "a/1", "1"],
        ["PER:lionel messi", 'ORG:barça, "fc"', "member_of", "/per/org/member_of", "0.5", "", "4"],
        ['ORG:barça, "fc"', "LOC:lionel messi", "founder", "founder", "0.125", "", "4"],
    ]


def test_ntriples(tmp_path: Path) -> None:
    assert write_ntriples(RESULTS, tmp_path / "graph.nt") == 3
    graph = Graph().parse(tmp_path / "graph.nt", format="nt")
    messi, barca = (
        URIRef(f"urn:hvpnet:entity/{name}") for name in ("PER/lionel%20messi", "ORG/bar%C3%A7a%2C%20%22fc%22")
    )
    member_of, score = URIRef("urn:hvpnet:relation/per/org/member_of"), URIRef("urn:hvpnet:score")
    assert (messi, member_of, barca) in graph
    assert graph.value(messi, RDFS.label).toPython() == "Lionel Messi"  # type: ignore[union-attr]
    assert (messi, RDF.type, URIRef("urn:hvpnet:type/PER")) in graph
    stated = {
        (graph.value(statement, PROV.wasDerivedFrom), graph.value(statement, score).toPython())  # type: ignore[union-attr]
        for statement in graph.subjects(RDF.predicate, member_of)
        if (statement, RDF.subject, messi) in graph and (statement, RDF.object, barca) in graph
    }
    assert stated == {(URIRef("urn:hvpnet:post/1%20a%2F1"), 0.75), (URIRef("urn:hvpnet:post/4"), 0.5)}
    assert graph.value(URIRef("urn:hvpnet:post/1%20a%2F1"), DCTERMS.identifier).toPython() == "a/1"  # type: ignore[union-attr]
    assert len(graph) == 3 * 2 + 2 + 3 * 6 + 2 + 1  # nodes, relations, statements, rows, ids
    lines = (tmp_path / "graph.nt").read_bytes()
    assert lines.count(b"\n") == len(graph)
    assert write_ntriples(RESULTS, tmp_path / "again.nt") == 3
    assert (tmp_path / "again.nt").read_bytes() == lines


def test_posts_are_told_apart_and_lines_are_lines(tmp_path: Path) -> None:
    """Ids that look alike or are the same, and one with a line's end."""
    results = [RESULTS[0] | {"id": id_, "row": row} for row, id_ in enumerate([7, "7", 7, "a\rb\n", None], start=1)]
    write_neo4j(results, tmp_path / "graph")
    edges = rows(tmp_path / "graph" / "edges.csv")[1:]
    assert [(edge[5], edge[6]) for edge in edges] == [
        ("7", "1"), ("7", "2"), ("7", "3"), ("a\\rb\\n", "4"), ("", "5"),
    ]  # fmt: skip
    assert len((tmp_path / "graph" / "edges.csv").read_text("utf-8").splitlines()) == 1 + 5
    write_ntriples(results, tmp_path / "graph.nt")
    graph = Graph().parse(tmp_path / "graph.nt", format="nt")
    statements = set(graph.subjects(RDF.type, RDF.Statement))
    assert len(statements) == len({graph.value(each, PROV.wasDerivedFrom) for each in statements}) == 5


def test_names_that_say_another_form() -> None:
    for name, form in (("a.parquet", "ntriples"), ("a", "ntriples"), ("a.csv", "neo4j"), ("a.nt", "neo4j")):
        with pytest.raises(InputError, match=r"must end in \.nt|is to be a folder"):
            check_graph_name(Path(name), form)  # type: ignore[arg-type]


def test_types_with_a_colon_are_no_other_types() -> None:
    assert Node("A:B", "c", "c").key != Node("A", "b:c", "b:c").key


@pytest.mark.parametrize("write", [write_neo4j, write_ntriples])
def test_half_a_surrogate_pair_in_an_id(write: Any, tmp_path: Path) -> None:
    """JSON may have it, UTF-8 does not."""
    assert write([{**RESULTS[0], "id": "\ud83d"}], tmp_path / "graph") == 1
