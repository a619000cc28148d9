"""Forked processes: an answer or an error at once, never a wait for threads that are not there."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

SCRIPT = """
import os, signal, sys
import numpy as np
from hvpnet_runtime import BackendError, Pipeline, Tweet

def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (60, 80, 3), np.uint8)

pipeline = Pipeline.load(sys.argv[1], sys.argv[2], threads=4)
tweet = Tweet(text="Jordan was great", image=picture(0), objects=[picture(1)])
expected = pipeline([tweet, tweet])
stream = pipeline.stream(Tweet(text="Paris", image=picture(0), objects=[picture(1)]) for _ in range(2000))
next(stream)
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(120)  # whatever waits for ever ends the child, with a code that is not 0
pixels = np.zeros((1, 224, 224, 3), np.uint8)
for use in (
    lambda: pipeline([tweet]), lambda: pipeline([tweet, tweet]), lambda: pipeline.prepare(tweet),
    lambda: list(stream), lambda: next(pipeline.stream([tweet])), lambda: pipeline.backend.encode_pictures(pixels),
):
    try:
        use()
    except BackendError as error:
        assert "load the pipeline in each process" in str(error)
    else:
        sys.exit("there was no error")
pipeline.close()
with Pipeline.load(sys.argv[1], sys.argv[2]) as own:
    assert [each.tags for each in own([tweet, tweet])] == [each.tags for each in expected]
"""


@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "openvino"])
def test_a_pipeline_is_of_the_process_that_loaded_it(ner_bundle: Path, backend: str) -> None:
    """The child ends too: freeing what its parent's backend holds would wait for the backend's threads."""
    if backend == "openvino":
        pytest.importorskip("openvino")
    ended = run(SCRIPT, ner_bundle, backend)
    assert ended.returncode == 0, ended.stderr


ENDING = """
import os, signal, sys
from hvpnet_runtime import Pipeline, Tweet

pipeline = Pipeline.load(sys.argv[1], sys.argv[2])
pipeline([Tweet(text="Paris")])
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(60)  # whatever waits for ever ends the child, with a code that is not 0
sys.exit(0)
"""


def run(script: str, bundle: Path, backend: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a script where nothing is said of telemetry but what is given."""
    inherited = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    arguments = [sys.executable, "-W", "ignore", "-c", script, str(bundle), backend]
    return subprocess.run(arguments, env=inherited | environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "openvino"])
def test_a_forked_process_that_does_nothing_ends(ner_bundle: Path, backend: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    ended = run(ENDING, ner_bundle, backend)
    assert (ended.returncode, ended.stderr) == (0, "")


WARNING = "onnxruntime was imported before a backend was loaded, with its telemetry on"


@pytest.mark.parametrize("first", ["", "from hvpnet_runtime import available_backends; available_backends()"])
def test_telemetry_that_is_on_is_told(ner_bundle: Path, first: str) -> None:
    """ONNX Runtime asks the environment as it is imported; a look at what runs here neither tells nor hides it."""
    load = "import sys; from hvpnet_runtime import Pipeline; [Pipeline.load(*sys.argv[1:]) for _ in 'ab']"
    told = run(f"import onnxruntime; {first}\n{load}", ner_bundle, "onnxruntime-cpu")
    assert told.returncode == 0
    assert told.stderr.count(WARNING) == 1
    assert "set ORT_DISABLE_TELEMETRY=1 before the import, or load the pipeline first" in told.stderr


def test_a_process_that_switches_telemetry_off_is_told_nothing_and_ends(ner_bundle: Path) -> None:
    ended = run("import onnxruntime\n" + ENDING, ner_bundle, "onnxruntime-cpu", ORT_DISABLE_TELEMETRY="1")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_closing_twice_or_in_the_same_process_still_frees(bundle_of: Callable[..., Path]) -> None:
    from hvpnet_runtime import BackendError, Pipeline, Tweet

    pipeline = Pipeline.load(bundle_of("ner", "text_only"))
    pipeline.close()
    pipeline.close()
    with pytest.raises(BackendError, match="closed"):
        pipeline([Tweet(text="Paris")])
