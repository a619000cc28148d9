"""The command as a user runs it: exit codes, one line on errors, nothing lost."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from json_keys import assert_snake_case
from PIL import Image

from hvpnet import HVPNeT, save_checkpoint
from hvpnet.cli import main
from hvpnet.cli.main import VERBS
from hvpnet.data import NER_LABELS
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet_export.parity import AGREEMENT
from hvpnet_runtime import Pipeline, Tweet

pytestmark = pytest.mark.heavy


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def error_line(text: str) -> str:
    """The one line that says what is wrong."""
    (line,) = [line for line in text.splitlines() if "error: " in line]
    assert "Traceback" not in text
    return line


@pytest.fixture(scope="module")
def checkpoint(ner_model: HVPNeT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(ner_model, tmp_path_factory.mktemp("checkpoint"))


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(verb in out for verb in VERBS)
    for verb in VERBS:
        assert run(capsys, verb, "--help")[0] == 0
    for verb in ("predict", "annotate", "evaluate", "serve"):
        help_ = " ".join(run(capsys, verb, "--help")[1].split())
        auto = "the first that loads of tensorrt, tensorrt-rtx, onnxruntime-cuda, onnxruntime-cpu"
        assert auto in help_.replace("- ", "-")  # lines break at hyphens


def test_input_that_cannot_be_read(capsys: pytest.CaptureFixture[str], ner_bundle: Path, tmp_path: Path) -> None:
    for path, reason in [(tmp_path, "Is a directory"), (tmp_path / "none.jsonl", "No such file or directory")]:
        code, _, err = run(capsys, "predict", ner_bundle, "--input", path)
        assert code == 1
        assert error_line(err).endswith(f"{path} cannot be read: {reason}; give a file of JSON lines")


def test_input_from_a_pipe(capsys: pytest.CaptureFixture[str], ner_bundle: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tweets.jsonl")
    with ThreadPoolExecutor(1) as writer:
        written = writer.submit((tmp_path / "tweets.jsonl").write_text, '{"id": 1, "text": "fine"}\n')
        code, out, _ = run(capsys, "predict", ner_bundle, "--input", tmp_path / "tweets.jsonl")
        assert written.result() > 0
    assert code == 0
    assert json.loads(out)["id"] == 1


def test_cut_pairs_are_kept_by_an_option(capsys: pytest.CaptureFixture[str], re_bundle: Path, tmp_path: Path) -> None:
    pair = ("--head", 0, 5, "--tail", 594, 599)
    code, _, err = run(capsys, "predict", re_bundle, "--text", "Paris " * 100, *pair)
    assert code == 1
    assert error_line(err).endswith("cut off the marker of head or tail; --window keeps the pair")
    tweet = {"id": 5, "text": "Paris " * 100, "head": [0, 5], "tail": [594, 599]}
    (tmp_path / "tweets.jsonl").write_text(json.dumps(tweet))
    code, out, _ = run(capsys, "predict", re_bundle, "--input", tmp_path / "tweets.jsonl")
    assert code == 1
    assert json.loads(out)["error"]["message"].endswith("cut off the marker of head or tail; --window keeps the pair")


def test_a_cut_word_is_named_with_its_characters(capsys: pytest.CaptureFixture[str], re_bundle: Path) -> None:
    pair = ("--head", 0, 4, "--tail", 11, 16)
    code, _, err = run(capsys, "predict", re_bundle, "--text", "Jordan met Smith", *pair)
    assert code == 1
    assert error_line(err) == (
        "hvpnet: error: head [0, 4) is 'Jord', a part of the word 'Jordan': give all of its characters [start, end)"
    )


@pytest.mark.parametrize(
    "arguments",
    [(), ("fly",), ("inspect",), ("inspect", "b", "--fast"), ("predict", "b", "--tex", "a"), ("export", "c")],
)
def test_wrong_command_lines_exit_2(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert error_line(err)


def test_export_verify_inspect(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    code, stdout, err = run(capsys, "export", checkpoint, "--tokenizer", tokenizer_dir, "--out", out, "--json")
    assert code == 0, err
    parity = json.loads(stdout)["parity"]
    assert parity["fp32"]["differing"] == 0
    assert_snake_case(json.loads(stdout))
    code, stdout, _ = run(capsys, "inspect", out, "--json")
    assert code == 0
    manifest = json.loads(stdout)
    assert manifest == {**json.loads((out / "manifest.json").read_text()), "engines": {}}
    assert manifest["parity"] == parity
    assert_snake_case(manifest)
    assert "parity fp32" in run(capsys, "inspect", out)[1]
    code, stdout, _ = run(capsys, "verify", out, "--checkpoint", checkpoint, "--json")
    assert code == 0
    assert json.loads(stdout)["precision"]["fp32"]["passed"] is True
    assert_snake_case(json.loads(stdout))
    code, _, err = run(capsys, "export", checkpoint, "--tokenizer", tokenizer_dir, "--out", out)
    assert code == 1
    assert "exists" in error_line(err)


def test_verify_fails_for_another_checkpoint(
    capsys: pytest.CaptureFixture[str], make_model: object, ner_bundle: Path, tmp_path: Path
) -> None:
    other = save_checkpoint(make_model("ner", seed=1), tmp_path / "other")
    code, _, err = run(capsys, "verify", ner_bundle, "--checkpoint", other)
    assert code == 1
    assert "than the checkpoint" in error_line(err)
    same_crf = make_model("ner", seed=1)
    same_crf.crf = make_model("ner").crf
    code, _, err = run(capsys, "verify", ner_bundle, "--checkpoint", save_checkpoint(same_crf, tmp_path / "same_crf"))
    assert code == 1
    assert "differ too much" in error_line(err)


def test_export_errors(
    capsys: pytest.CaptureFixture[str],
    checkpoint: Path,
    ner_model: HVPNeT,
    re_model: HVPNeT,
    tokenizer_dir: Path,
    tmp_path: Path,
) -> None:
    relations = tmp_path / "re.pth"
    torch.save(re_model.state_dict(), relations)
    labels = tmp_path / "labels.json"
    labels.write_text('["one", "two"]')
    entities, bioes = tmp_path / "ner.pth", tmp_path / "bioes.json"
    torch.save(ner_model.state_dict(), entities)
    bioes.write_text(json.dumps([*NER_LABELS[:4], "S-PER", "E-PER", *NER_LABELS[6:]]))
    tokenizer, out = ("--tokenizer", tokenizer_dir), ("--out", tmp_path / "bundle")
    cases = [
        ((tmp_path / "absent.pth", *tokenizer), "cannot be read"),
        ((relations, *tokenizer), "give them as --labels NAMES"),
        ((relations, *tokenizer, "--labels", labels), "names 2 relations"),
        ((entities, *tokenizer, "--labels", bioes), "'S-PER' is no label of entities: they are B-TYPE, I-TYPE and O"),
        ((checkpoint, *tokenizer, "--heads", 4), "has 2 attention heads, not 4"),
        ((relations, *tokenizer, "--task", "ner"), "for task re, not ner"),
        ((checkpoint, "--tokenizer", tmp_path), "neither vocab.txt nor tokenizer.json"),
        ((checkpoint, *tokenizer, "--variant", "flat"), "variant"),
        ((checkpoint, *tokenizer, "--max-length", 4000), "max_length"),
    ]
    for arguments, message in cases:
        code, _, err = run(capsys, "export", *arguments, *out)
        assert code == 1
        assert message in error_line(err)
        assert not (tmp_path / "bundle").exists()


def test_export_of_a_training_run_takes_its_tokenizer(
    capsys: pytest.CaptureFixture[str], ner_model: HVPNeT, tokenizer_dir: Path, tmp_path: Path
) -> None:
    best = save_checkpoint(ner_model, tmp_path / "run" / "best")
    code, _, err = run(capsys, "export", tmp_path / "run", "--out", tmp_path / "bundle")
    assert code == 1
    message = f"no tokenizer lies in {best}: give --tokenizer, the folder of the BERT that was trained on"
    assert error_line(err).endswith(message)
    load_tokenizer(tokenizer_dir, "ner").save(str(best / "tokenizer.json"))
    for given, out in ((tmp_path / "run", "a"), (best, "b")):
        code, stdout, err = run(capsys, "export", given, "--out", tmp_path / out, "--json")
        assert code == 0, err
        assert json.loads(stdout)["heads"] == 2
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()
    code, _, err = run(capsys, "verify", tmp_path / "a", "--checkpoint", tmp_path / "run")
    assert code == 0, err


def test_export_keeps_going(
    capsys: pytest.CaptureFixture[str],
    checkpoint: Path,
    tokenizer_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(AGREEMENT, "fp16", 1.1)  # more than all decisions
    arguments = ("--tokenizer", tokenizer_dir, "--out", tmp_path / "bundle", "--precision", "fp32,fp16", "--keep-going")
    code, _, err = run(capsys, "export", checkpoint, *arguments)
    assert code == 1
    assert f"{tmp_path / 'bundle'} holds fp32, but not fp16: the graphs differ too much" in error_line(err)
    assert run(capsys, "verify", tmp_path / "bundle", "--checkpoint", checkpoint)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_leaves_no_staging_folder(
    checkpoint: Path, tokenizer_dir: Path, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "bundle"
    command = [
        sys.executable,
        "-c",
        "from hvpnet.cli import main; raise SystemExit(main())",
        "export",
        checkpoint,
        "--tokenizer",
        tokenizer_dir,
        "--out",
        out,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "exporting the fp32 vision.onnx" not in process.stderr.readline():
            assert process.poll() is None
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == 128 + number
    assert error_line(err) == "hvpnet: error: terminated"
    assert list(tmp_path.iterdir()) == []


def test_signals_are_given_back(capsys: pytest.CaptureFixture[str], ner_bundle: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run(capsys, "inspect", ner_bundle)[0] == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_predict_one_tweet(
    capsys: pytest.CaptureFixture[str], ner_bundle: Path, re_bundle: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(tmp_path / "a.png")
    code, out, err = run(
        capsys, "predict", ner_bundle, "--text", "Jordan was here", "--image", tmp_path / "a.png", "--json"
    )
    assert code == 0
    assert "backend onnxruntime" in err
    with Pipeline.load(ner_bundle) as pipeline:
        expected = pipeline([Tweet(text="Jordan was here", image=tmp_path / "a.png")])[0]
    assert json.loads(out)["tags"] == list(expected.tags)
    pair = ("--head", 0, 6, "--tail", 10, 15)
    code, out, _ = run(capsys, "predict", re_bundle, "--text", "Jordan in Paris", *pair)
    assert code == 0
    head, relation, tail, _ = out.split()
    assert (head, tail) == ("Jordan", "Paris")
    assert relation.startswith(("/per/", "None"))
    for arguments, message in [
        (("--text", ""), "empty"),
        (("--text", "\u200b"), "no visible character"),
        (("--text", "a", "--image", tmp_path / "absent.png"), "absent.png"),
        (("--text", "a", "--output", tmp_path / "o"), "--output belongs to --input"),
        (("--input", tmp_path / "absent.jsonl"), "absent.jsonl"),
        (("--input", tmp_path / "absent.jsonl", "--image", "a.png"), "belong to --text"),
    ]:
        code, _, err = run(capsys, "predict", ner_bundle, *arguments)
        assert code == 1
        assert message in error_line(err)


def test_predict_lines_loses_none(capsys: pytest.CaptureFixture[str], ner_bundle: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(tmp_path / "a.png")
    rows: list[object] = [{"id": index, "text": f"Jordan number {index}", "image": "a.png"} for index in range(70)]
    rows[3] = {"id": "three", "text": ""}
    rows[40] = {"id": 40, "text": "a", "image": "absent.png"}
    rows[41] = {"id": 41, "text": "a", "imgae": "a.png"}
    rows[42] = ["no", "object"]
    rows[43] = {"id": "\ud800", "text": "half a surrogate pair as id", "boxes": []}
    lines = [json.dumps(row).encode() for row in rows]
    lines[44] = b'{"id": 44, "text": "broken \xff utf-8"}'
    lines[45] = b"{"
    (tmp_path / "tweets.jsonl").write_bytes(b"\n".join(lines) + b"\n\n")
    out = tmp_path / "out.jsonl"
    code, _, err = run(capsys, "predict", ner_bundle, "--input", tmp_path / "tweets.jsonl", "--output", out)
    assert code == 1
    assert "6 of 70 tweets were rejected" in err
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(answers) == 70
    failed = {index: answer["error"]["type"] for index, answer in enumerate(answers) if "error" in answer}
    assert failed == {
        3: "TextError",
        40: "PictureError",
        41: "InputError",
        42: "InputError",
        44: "TextError",
        45: "InputError",
    }
    assert [answers[index]["id"] for index in (0, 3, 41, 43, 69)] == [0, "three", 41, "\ud800", 69]
    with Pipeline.load(ner_bundle) as pipeline:
        expected = pipeline([Tweet(text="Jordan number 69", image=tmp_path / "a.png")])[0]
    assert answers[69]["tags"] == list(expected.tags)
    code, stdout, _ = run(capsys, "predict", ner_bundle, "--input", tmp_path / "tweets.jsonl")
    assert (code, stdout) == (1, out.read_text())
    (tmp_path / "good.jsonl").write_text('{"text": "fine"}\n')
    code, stdout, _ = run(capsys, "predict", ner_bundle, "--input", tmp_path / "good.jsonl")
    assert code == 0
    assert json.loads(stdout)["id"] is None


ODD_ROWS = [
    b'{"id": 1, "text": "Jordan was great today"}',
    b'{"id": "\\ud83d", "text": "Jordan was great today"}',
    b'{"id": "caf\xe9", "text": "NASA again"}',
    '{"id": "\u6771\u4eac \U0001f600", "text": "\u6771\u4eac"}'.encode(),
    b'{"id": NaN, "text": "NASA again"}',
    b'{"id": 1e999, "text": "NASA again"}',
    b'{"id": {"a": [-Infinity]}, "text": "NASA"}',
    b'{"id": ' + 900 * b"[" + 900 * b"]" + b', "text": "deep"}',
    b'{"id": ' + 100_000 * b"[" + 100_000 * b"]" + b', "text": "deeper"}',
    b'{"id": 10, "text": "a", "image": "' + 75_000 * b"A" + b'"}',
    b'{"id": 11, "text": "a", "' + 75_000 * b"A" + b'": 1}',
    b'{"id": 12, "text": "a", "image": {"a": "' + 75_000 * b"A" + b'"}}',
]


@pytest.mark.parametrize("encoding", ["ascii:strict", "latin-1", "utf-8"])
def test_no_row_and_no_encoding_ends_a_run(ner_bundle: Path, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "odd.jsonl").write_bytes(b"\n".join(ODD_ROWS))
    command = [sys.executable, "-c", "from hvpnet.cli import main; raise SystemExit(main())"]
    done = subprocess.run(
        [*command, "predict", ner_bundle, "--input", tmp_path / "odd.jsonl"],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    lines = done.stdout.decode(encoding.partition(":")[0]).splitlines()
    assert max(map(len, lines)) < 1000
    answers = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [answer["id"] for answer in answers] == [
        1, "\ud83d", "caf\udce9", "\u6771\u4eac \U0001f600", None, None, None, None, None, 10, 11, 12,
    ]  # fmt: skip
    assert [("error" in answer) for answer in answers] == [False] * 4 + [True] * 8
    assert "1e999 is not a finite number" in answers[5]["error"]["message"]


def test_an_output_that_is_the_input_is_refused(
    capsys: pytest.CaptureFixture[str], ner_bundle: Path, tmp_path: Path
) -> None:
    tweets = tmp_path / "t.jsonl"
    tweets.write_text('{"text": "fine"}\n')
    (tmp_path / "soft.jsonl").symlink_to(tweets)
    (tmp_path / "hard.jsonl").hardlink_to(tweets)
    (tmp_path / "u.jsonl.part").hardlink_to(tweets)
    for given, output in [
        ("t.jsonl", "t.jsonl"), ("t.jsonl", "soft.jsonl"), ("soft.jsonl", "t.jsonl"), ("t.jsonl", "hard.jsonl"),
        ("t.jsonl", "u.jsonl"), ("u.jsonl.part", "u.jsonl"),
    ]:  # fmt: skip
        code, _, err = run(capsys, "predict", ner_bundle, "--input", tmp_path / given, "--output", tmp_path / output)
        assert code == 1
        assert "would replace the tweets of --input" in error_line(err)
        assert tweets.read_text() == '{"text": "fine"}\n'


def test_a_standard_output_that_is_the_input_is_refused(ner_bundle: Path, tmp_path: Path) -> None:
    tweets, content = tmp_path / "t.jsonl", '{"text": "fine"}\n'
    tweets.write_text(content)
    (tmp_path / "soft.jsonl").symlink_to(tweets)
    for given, mode in [("t.jsonl", "ab"), ("t.jsonl", "r+b"), ("soft.jsonl", "ab")]:  # >> and 1<> of a shell
        main_ = "import sys; from hvpnet.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", main_, "predict", str(ner_bundle), "--input", str(tmp_path / given)]
        with tweets.open(mode) as output:
            ended = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
        assert ended.returncode == 1
        assert error_line(ended.stderr) == (
            f"hvpnet: error: standard output is --input {tmp_path / given}, which would never end; name another file"
        )
        assert tweets.read_text() == content


def test_a_device_as_output_stays_one(capsys: pytest.CaptureFixture[str], ner_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text('{"text": "fine"}\n')
    (tmp_path / "null").symlink_to(os.devnull)
    code, _, err = run(capsys, "predict", ner_bundle, "--input", tmp_path / "good.jsonl", "--output", tmp_path / "null")
    assert code == 0, err
    assert (tmp_path / "null").is_symlink()
    assert not (tmp_path / "null.part").exists()


def test_an_interrupted_output_does_not_take_its_name(
    capsys: pytest.CaptureFixture[str], ner_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.jsonl").write_text('{"text": "fine"}\n')
    monkeypatch.setattr(Pipeline, "start", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    out = tmp_path / "out.jsonl"
    code, _, err = run(capsys, "predict", ner_bundle, "--input", tmp_path / "good.jsonl", "--output", out)
    assert code == 130
    assert "interrupted" in err
    assert not out.exists()


def test_evaluate_refuses_data_of_the_other_task(
    capsys: pytest.CaptureFixture[str], re_bundle: Path, picture_tweets: Callable[..., Path]
) -> None:
    code, _, err = run(capsys, "evaluate", re_bundle, "--data", picture_tweets("ner"))
    assert code == 1
    assert "the data are for task ner, the bundle is for re" in error_line(err)


def test_int8_from_the_command_line(
    capsys: pytest.CaptureFixture[str],
    bundle_of: Callable[..., Path],
    quantisable: Callable[..., HVPNeT],
    picture_tweets: Callable[..., Path],
    tmp_path: Path,
) -> None:
    bundle, data = bundle_of("ner", precisions=("fp32", "int8")), picture_tweets("ner")
    checkpoint = save_checkpoint(quantisable("ner"), tmp_path / "checkpoint")
    code, out, err = run(capsys, "evaluate", bundle, "--data", data, "--precision", "int8", "--json")
    assert code == 0, err
    assert "onnxruntime-cpu, int8" in err
    assert 0 <= json.loads(out)["f1"] <= 1
    code, out, err = run(capsys, "verify", bundle, "--checkpoint", checkpoint, "--data", data, "--json")
    assert code == 0, err
    reports = json.loads(out)["precision"]
    assert reports["fp32"]["output_error"] < 1e-3 < reports["int8"]["output_error"] < 0.3
    code, _, err = run(capsys, "verify", bundle, "--checkpoint", checkpoint)
    assert code == 1
    assert "int8 graphs, which are compared on tweets, not at random: give --data" in error_line(err)


def test_verify_on_tweets_with_a_broken_picture(
    capsys: pytest.CaptureFixture[str],
    ner_bundle: Path,
    checkpoint: Path,
    picture_tweets: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """An error, or inf.png in its place, whose answers are compared like any other's."""
    data = shutil.copytree(picture_tweets("ner"), tmp_path / "data")
    number = (data / "test.txt").read_text("utf-8").partition("\n")[0].removeprefix("IMGID:")
    (data / "images" / f"{number}.jpg").write_bytes(b"no picture")
    Image.new("RGB", (300, 260), "teal").save(data / "images" / "inf.png")
    verify = ("verify", ner_bundle, "--checkpoint", checkpoint, "--data", data, "--json")
    code, out, err = run(capsys, *verify)
    assert (code, out) == (1, "")
    assert f"{number}.jpg" in error_line(err)
    code, out, err = run(capsys, *verify, "--on-bad-image", "substitute")
    assert code == 0, err
    report = json.loads(out)["precision"]["fp32"]
    assert (report["passed"], report["cases"]) == (True, 3)  # batches of eight of 24 tweets


@pytest.mark.parametrize(
    "arguments", [("--precision", "fp32,int8"), ("--precision", "int8_fp16"), ("--calibration", "data")]
)
def test_int8_and_calibration_go_together(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    code, _, err = run(capsys, "export", "missing.pth", "--tokenizer", "t", "--out", "out", *arguments)
    assert code == 1
    message = "--precision int8 or int8_fp16 and --calibration DATA, the folder of the training data, go together"
    assert message in error_line(err)


@pytest.mark.parametrize(
    ("package", "extra"), [("torch", "export"), ("pydantic", "export"), ("onnxruntime.capi", "cpu")]
)
def test_a_missing_extra_is_named(
    capsys: pytest.CaptureFixture[str],
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    extra: str,
) -> None:
    def refuse(*_: object) -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr("hvpnet.cli.export.progress", refuse)
    code, _, err = run(capsys, "export", checkpoint, "--tokenizer", tmp_path, "--out", tmp_path / "bundle")
    assert code == 1
    needed = f"the package {package.partition('.')[0]}: pip install 'hvpnet[{extra}]'"
    assert error_line(err) == f"hvpnet: error: hvpnet export needs {needed}"


@pytest.mark.parametrize("package", ["pyarrow", "filelock", "tqdm"])
def test_the_extra_of_bulk_runs_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.delitem(sys.modules, "hvpnet_runtime.bulk", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else name)
    code, _, err = run(capsys, "annotate", "bundle", "in.jsonl", "out.jsonl")
    assert code == 1
    assert error_line(err).endswith(f"bulk annotation needs the package {package}: pip install 'hvpnet[bulk]'")


@pytest.mark.parametrize("package", ["ray", "pandas"])
@pytest.mark.parametrize("arguments", [("--ray",), ("--address", "10.0.0.1:6379")])
def test_the_extra_of_bulk_runs_on_ray_is_named(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    package: str,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.delitem(sys.modules, "hvpnet_runtime.bulk.on_ray", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else name)
    code, _, err = run(capsys, "annotate", "bundle", "in.jsonl", tmp_path / "out.jsonl", *arguments)
    assert code == 1
    assert error_line(err).endswith(f"bulk annotation on Ray needs the package {package}: pip install 'hvpnet[ray]'")


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        *((name, "serve") for name in ("starlette.requests", "uvicorn", "pydantic")),
        *((name, "ray") for name in ("ray", "ray.serve", "aiohttp")),
    ],
)
def test_the_extra_of_the_service_is_named(
    capsys: pytest.CaptureFixture[str], ner_bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    def refuse(*_: object) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("hvpnet.cli.serve.progress", refuse)
    code, _, err = run(capsys, "serve", ner_bundle)
    assert code == 1
    package = name.partition(".")[0]
    assert error_line(err).endswith(f"hvpnet serve needs the package {package}: pip install 'hvpnet[{extra}]'")


def test_unexpected_errors_are_one_line_and_a_traceback_with_debug(
    capsys: pytest.CaptureFixture[str], ner_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hvpnet.cli.inspect.show", lambda *_, **__: 1 / 0)
    code, _, err = run(capsys, "inspect", ner_bundle)
    assert code == 1
    assert "unexpected ZeroDivisionError" in error_line(err)
    with pytest.raises(ZeroDivisionError):
        main(["inspect", str(ner_bundle), "--debug"])


def test_a_closed_pipe_is_quiet_but_with_debug(
    capsys: pytest.CaptureFixture[str], ner_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("hvpnet.cli.inspect.show", broken)
    with pytest.raises(BrokenPipeError):
        main(["inspect", str(ner_bundle), "--debug"])
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert main(["inspect", str(ner_bundle)]) == 1
    assert capsys.readouterr().err == ""
