"""`import hvpnet` is the one door: it opens with the runtime alone, and loads nothing before it is asked."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import hvpnet
import hvpnet_runtime

SCRIPT = """
import sys
for name in ("torch", "torchvision", "transformers", "onnx", "onnxscript", "pydantic", "ray", "seqeval", "httpx2"):
    sys.modules[name] = None  # an import of it fails
import hvpnet
assert not [name for name in sys.modules if name.startswith("hvpnet_runtime")], "loaded before it was asked for"
from hvpnet import Pipeline, Tweet
print(Pipeline.load(sys.argv[1])([Tweet(text="Jordan was great")])[0].tags, hvpnet.__version__)
"""


def test_serves_with_the_runtime_alone(ner_bundle: Path) -> None:
    run = [sys.executable, "-c", SCRIPT, str(ner_bundle)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with hvpnet.Pipeline.load(ner_bundle) as pipeline:
        (expected,) = pipeline([hvpnet.Tweet(text="Jordan was great")])
    assert done.stdout.strip() == f"{expected.tags} {version('hvpnet')}"


def test_every_name_is_there_and_documented() -> None:
    for name in hvpnet.__all__:
        assert getattr(hvpnet, name).__doc__
    assert set(hvpnet_runtime.__all__) <= set(hvpnet.__all__)
    assert {*hvpnet.__all__, "__version__"} <= set(dir(hvpnet))
    with pytest.raises(AttributeError, match="module 'hvpnet' has no attribute 'Pipelin'"):
        _ = hvpnet.Pipelin
