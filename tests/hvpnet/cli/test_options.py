import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from hvpnet.cli import export
from hvpnet.cli.grounder_options import GrounderOptions
from hvpnet.cli.main import VERBS, main
from hvpnet.cli.options import ShownOptions, add_options, argument, in_options, option, select, show


@dataclass(frozen=True, kw_only=True)
class Options(ShownOptions):
    source: Path = argument("what is read")
    names: list[str] = argument(nargs="*")
    kind: Literal["ner", "re"] = option(default="ner")
    most_rows: int | None = option()
    share: float = option(default=0.5)
    words: list[int] | None = option(nargs=2)
    text: str | None = option(one_of="source", required=True)
    crops: list[Path] | None = option(one_of="source", required=True, action="append")


def parse(line: str) -> Options:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser, Options)
    return select(Options, parser.parse_args(line.split()))


def test_cures_of_the_library_are_shown_as_options() -> None:
    shown = {
        'take it with kind="re" or add it': "take it with --kind re or add it",
        "json=True shows it": "--json shows it",
        'most_rows="9", then': "--most-rows 9, then",
        "or give most_rows=N": "or give --most-rows N",
        'window="x" is no option of this verb': 'window="x" is no option of this verb',
        'a path /data/names=1 or mykind="re"': 'a path /data/names=1 or mykind="re"',
    }
    assert {message: in_options(message, Options) for message in shown} == shown


def test_cures_of_exporting_are_its_options() -> None:
    assert in_options("fp16: too large: keep_going=True writes the bundle with fp32 alone", export.Options) == (
        "fp16: too large: --keep-going writes the bundle with fp32 alone"
    )
    assert in_options("put config.json beside it, or give heads=N", export.Options).endswith("or give --heads N")


def test_a_result_for_people_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    result = {
        "best_epoch": 3,
        "dev": {"f1": 0.54321, "some_name": None},
        "per_type": {"LOC": {"f1": 0.5}, "MISC": {"f1": 1.0}},
        "tried": [{"threshold": 0.25, "f1": 0.5}],
        "files": {},
    }
    show(result, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "best epoch     3",
        "dev f1         0.5432",
        "dev some_name  None",
        "per type             f1",
        "               LOC   0.5",
        "               MISC  1",
        "tried          threshold  f1",
        "               0.25       0.5",
        "files          none",
    ]
    show(result, as_json=True)
    assert json.loads(capsys.readouterr().out) == result


@pytest.mark.parametrize(
    ("line", "missing", "extra"),
    [
        ("demo", "matplotlib", "train,bench,cpu"),
        ("demo", "seqeval", "train,bench,cpu"),
        ("bench b --checkpoint c --out d", "matplotlib", "bench"),
    ],
)
def test_what_is_needed_at_the_end_is_missed_at_once(
    line: str, missing: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(line.split()) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert f"pip install 'hvpnet[{extra}]'" in said


def test_a_type_decides_how_its_option_is_read() -> None:
    default = {"names": [], "kind": "ner", "most_rows": None, "share": 0.5, "words": None, "text": None, "crops": None}
    default |= {"json": False, "debug": False}
    assert parse("a --text b") == Options(**default | {"source": Path("a"), "text": "b"})
    given: dict[str, Any] = {"source": Path("a"), "names": ["b", "c"], "kind": "re", "most_rows": 3, "share": 2.0}
    given |= {"words": [1, 2], "crops": [Path("d"), Path("e")], "json": True}
    line = "a b c --kind re --most-rows 3 --share 2 --words 1 2 --crops d --crops e --json"
    assert parse(line) == Options(**default | given)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a", "one of the arguments --text --crops is required"),
        ("a --text b --crops c", "not allowed with argument --text"),
        ("a --text b --kind other", "invalid choice: 'other'"),
        ("a --text b --most-rows x", "invalid int value: 'x'"),
        ("--text b", "the following arguments are required: source"),
    ],
)
def test_what_does_not_fit_is_refused(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(line)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_what_is_shared_last(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    options = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  --")]
    assert options[-1] == "--debug"


@pytest.mark.parametrize(
    ("queries", "words"),
    [
        ("text", None),
        ("fixed", ("person", "organization", "location", "miscellaneous")),
        ("dog, a red kite", ("dog", "a red kite")),
        ("context", ("context",)),
        ("", "give words separated by commas"),
        ("person,", "give words separated by commas"),
        ("a,b, a", "each of them once"),
        ("Text", "text and fixed stand alone, in small letters"),
        ("fixed,person", "text and fixed stand alone, in small letters"),
    ],
)
def test_what_a_grounder_is_asked(
    queries: str, words: tuple[str, ...] | str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, GrounderOptions)
    if isinstance(words, str):
        with pytest.raises(SystemExit):
            parser.parse_args(["--queries", queries])
        assert words in capsys.readouterr().err
    else:
        assert select(GrounderOptions, parser.parse_args(["--queries", queries])).words("re") == words


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("predict x --text a --device -1", "GPUs are numbered from 0, and '-1' is no such number"),
        ("predict x --text a --device first", "GPUs are numbered from 0, and 'first' is no such number"),
        ("serve x --ray --device 0", "--device belongs to the service in this process; Ray gives replicas their GPUs"),
        ("annotate x a.jsonl b.jsonl --ray --device 0", "--device belongs to a run without Ray"),
        ("annotate x a.jsonl b.jsonl --copies 2 --device 1", "--device 1 is one GPU, which has one copy of the bundle"),
        ("bench x --checkpoint y --out z --backend openvino --device 1", "GPU 1 is chosen for the backend openvino"),
    ],
)
def test_a_gpu_that_makes_no_sense_is_refused(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(line.split())
    except SystemExit as stop:
        code = int(str(stop.code))
    assert code in (1, 2)
    assert said in capsys.readouterr().err
