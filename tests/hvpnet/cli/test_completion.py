"""What `hvpnet completion` prints makes bash complete verbs, options, their values and files."""

import subprocess

import pytest

from hvpnet.cli import main
from hvpnet.cli.main import VERBS

COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_hvpnet; printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def completed(capsys, tmp_path, monkeypatch):
    """What bash offers for a line whose last word is not finished."""
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out, "utf-8")
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "tweets.jsonl").touch()

    def complete(*words):
        run = ["bash", "-c", COMPLETE, "bash", script, "hvpnet", *words]
        return set(subprocess.run(run, check=True, capture_output=True, text=True, cwd=folder).stdout.split())

    return complete


def test_bash_completes_verbs_options_values_and_files(completed):
    assert completed("") >= {verb.partition(" ")[0] for verb in VERBS}
    assert completed("gro") == {"ground"}
    assert completed("ground", "") >= {"add", "tune"}
    assert completed("ground", "add", "--gr") == {"--grounder", "--grounder-tokenizer"}
    assert completed("predict", "bundle", "--backend", "onnxruntime-cp") == {"onnxruntime-cpu"}
    assert completed("predict", "bundle", "--input", "tw") == {"tweets.jsonl"}
    assert completed("predict", "tw") == {"tweets.jsonl"}


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh", "powershell"])
def test_other_shells_have_a_script(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "keep-going" in capsys.readouterr().out
