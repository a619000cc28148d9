"""What a wheel must do on the platform it was built for: its compiled parts compute, and the command starts."""

import subprocess
import sys

import numpy as np

import hvpnet
from hvpnet import Pipeline, Tweet, split_words
from hvpnet_runtime.compiled import _crf, _pixels

zeros = np.zeros(2, np.float32)
crf = _crf.Crf(zeros, zeros, np.array([[0, 1], [0, 0]], np.float32))
emissions = np.array([[[1, 0], [0.5, 0]]], np.float32)  # [B, T, labels]
tags = crf.decode(emissions, np.ones((1, 2), np.uint8))
assert [list(each) for each in tags] == [[0, 1]], tags  # 1 + 1 + 0 beats 1 + 0 + 0.5

assert callable(_pixels.resize_part)
assert Pipeline is not None
assert Tweet(text="Jordan was great").text == "Jordan was great"
assert [word.text for word in split_words("Jordan was great")] == ["Jordan", "was", "great"]

said = subprocess.run([sys.executable, "-m", "hvpnet", "--version"], capture_output=True, text=True, check=True)
print(f"hvpnet {hvpnet.__version__} on {sys.platform}, Python {sys.version.split()[0]}: {said.stdout.strip()}")
