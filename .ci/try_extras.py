"""Install a wheel with each of its extras into a clean environment, and look whether it works there: a line for each.

Extras of GPUs are resolved alone, for their libraries take gigabytes and load on no other machine.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESOLVED_ALONE = ("gpu", "gpu-tensorrt", "tensorrt", "tensorrt-rtx", "dev")
IMPORTS = {
    "bench": "hvpnet.bench.run, hvpnet.bench.report",
    "bulk": "hvpnet_runtime.bulk",
    "client": "hvpnet_runtime.client",
    "cpu": "onnxruntime",
    "eval": "seqeval.metrics",
    "docs": "mkdocs, mkdocstrings",
    "export": "hvpnet_export.bundle",
    "graph": "hvpnet_runtime.triples.ntriples",
    "grounding": "cv2, textblob, filelock",
    "model": "hvpnet.modeling.model",
    "openvino": "openvino",
    "ray": "ray.data, ray.serve",
    "serve": "hvpnet_runtime.serving.server",
    "train": "hvpnet.training.run",
}
"""What an extra is for must import."""


def main(wheel: Path, chosen: list[str]) -> int:
    """Try the extras that were named, or all; exit code 1 if one fails."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    failed = 0
    for extra in chosen or ["", *extras]:
        with tempfile.TemporaryDirectory() as folder:
            problem = _try(wheel, extra, Path(folder))
        failed += problem is not None
        print(f"{extra or '(none)':<14} {problem or ('resolves' if extra in RESOLVED_ALONE else 'works')}", flush=True)
    return 1 if failed else 0


def _try(wheel: Path, extra: str, folder: Path) -> str | None:
    """What is wrong with it."""
    python = folder / "venv/bin/python"
    what = f"{wheel.resolve()}[{extra}]" if extra else str(wheel.resolve())
    install = [python, "-m", "pip", "install", "--quiet", what]
    steps = [[sys.executable, "-m", "venv", folder / "venv"]]
    if extra in RESOLVED_ALONE:
        steps.append([*install, "--dry-run"])
    else:
        check = f"import hvpnet; hvpnet.Pipeline; import {IMPORTS.get(extra, 'hvpnet_runtime')}"
        steps += [install, [python, "-m", "pip", "check"], [python, "-c", check], [python, ROOT / ".ci/check_wheel.py"]]
    for step in steps:
        done = subprocess.run(step, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            telling = [line for line in said if re.search(r"ERROR|failed\.|not reachable", line)]
            return f"{' '.join(map(str, step[1:4]))}: {' '.join(telling or said[-3:])}"
    return None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
