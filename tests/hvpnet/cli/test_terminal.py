"""What a terminal is shown, and what a pipe gets: the same as ever."""

import io
import json
import sys

import pytest

from hvpnet.cli import main
from hvpnet.cli.terminal import Counter, Span, highlighted, shows_colours


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_spans_are_coloured_by_their_kind():
    spans = [Span(10, 15, "LOC"), Span(0, 6, "PER"), Span(16, 17, "product")]
    assert highlighted("Jordan in Paris !?", spans) == (
        "\x1b[1;32mJordan\x1b[0m in \x1b[1;34mParis\x1b[0m \x1b[1;36m!\x1b[0m?"
    )


def test_colours_are_for_terminals_whose_user_wants_them(terminal, monkeypatch):
    assert shows_colours(terminal)
    assert not shows_colours(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not shows_colours(terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not shows_colours(terminal)


def test_predict_highlights_on_a_terminal_alone(re_bundle, terminal, monkeypatch, capsys):
    one = ["predict", str(re_bundle), "--text", "Jordan met Paris", "--head", "0", "6", "--tail", "11", "16"]
    assert main(one) == 0
    piped = capsys.readouterr().out
    assert "\x1b" not in piped
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(one) == 0
    assert terminal.getvalue() == f"\x1b[1;36mJordan\x1b[0m met \x1b[1;36mParis\x1b[0m\n{piped}"
    shown = terminal.getvalue()
    assert main([*one, "--json"]) == 0
    assert json.loads(terminal.getvalue().removeprefix(shown))["head"]["text"] == "Jordan"


def test_counts_are_written_over_on_a_terminal_and_rare_elsewhere(terminal, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("hvpnet.cli.terminal.time.monotonic", lambda: now[0])
    for stream, expected in [
        (terminal, "\r\x1b[Khvpnet: 1\r\x1b[Khvpnet: 2\r\x1b[Khvpnet: 3\r\x1b[Khvpnet: 4\n"),
        (io.StringIO(), "hvpnet: 3\nhvpnet: 4\n"),
    ]:
        monkeypatch.setattr(sys, "stderr", stream)
        counter = Counter()
        for count, seconds in enumerate((1, 5, 5, 1), start=1):
            now[0] += seconds
            counter.show(str(count), is_last=count == 4)
        assert stream.getvalue() == expected


def test_standard_input_is_read_as_a_file_is(ner_bundle, monkeypatch, tmp_path, capsys):
    lines = b'{"id": 1, "text": "Jordan was great"}\n\n{"id": 2, "text": "Paris", "image": "none.jpg"}\n'
    (tmp_path / "tweets.jsonl").write_bytes(lines)
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(ner_bundle), "--input", "tweets.jsonl"]) == 1
    expected = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert main(["predict", str(ner_bundle), "--input", "-"]) == 1
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[1]["row"] == 3
    assert str(tmp_path / "none.jpg") in answers[1]["error"]["message"]
    assert len(expected.splitlines()) == 2


def test_a_resumable_run_says_what_reads_standard_input(ner_bundle, capsys):
    assert main(["annotate", str(ner_bundle), "-", "out.jsonl"]) == 1
    assert (
        "needs a file, not standard input: name one; of entities or relations alone, hvpnet predict BUNDLE --input -"
        in (capsys.readouterr().err)
    )
