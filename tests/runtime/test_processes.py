"""Forked processes: an answer or an error at once, never a wait for threads that are not there."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    arguments = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(ner_bundle), backend]
    ended = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_closing_twice_or_in_the_same_process_still_frees(bundle_of: Callable[..., Path]) -> None:
    from hvpnet_runtime import BackendError, Pipeline, Tweet

    pipeline = Pipeline.load(bundle_of("ner", "text_only"))
    pipeline.close()
    pipeline.close()
    with pytest.raises(BackendError, match="closed"):
        pipeline([Tweet(text="Paris")])
