"""Check a bundle's files against their digests and show what the bundle holds."""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hvpnet.cli.options import add_json, show
from hvpnet_runtime.backends.tensorrt.record import BuildRecord, built_engines
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import StaleEngineError


@dataclass(frozen=True)
class Options:
    """What `hvpnet inspect` was asked to do."""

    bundle: Path
    json: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", type=Path)
    add_json(parser)


def run(options: Options) -> int:
    """Show the manifest and the engines that were built; in full with --json."""
    bundle = Bundle.load(options.bundle)
    manifest, engines = dict(bundle.manifest), built_engines(bundle)
    if options.json:
        records = {
            name: asdict(built) if isinstance(built, BuildRecord) else {"error": str(built)}
            for name, built in engines.items()
        }
        show(manifest | {"engines": records}, as_json=True)
        return 0
    parity = manifest["parity"]
    files = manifest["files"]
    show(
        {
            "bundle": options.bundle,
            "schema": manifest["schema_version"],
            "task": manifest["task"],
            "variant": manifest["variant"],
            "labels": manifest["labels"],
            **{name.replace("_", " "): value for name, value in manifest["sizes"].items()},
            **{name.replace("_", " "): value for name, value in manifest["limits"].items()},
            **{f"parity {name}": _parity(report) for name, report in parity.items()},
            "produced by": [f"{name} {version}" for name, version in manifest["produced_by"].items()],
            **{name: f"{facts['bytes'] / 1e6:.1f} MB, sha256 {facts['sha256'][:12]}" for name, facts in files.items()},
            **{f"engines/{name}": _engine(built) for name, built in engines.items()},
        },
        as_json=False,
    )
    return 0


def _engine(built: BuildRecord | StaleEngineError) -> str:
    if isinstance(built, StaleEngineError):
        return str(built)
    longest = built.profiles["text"][-1]
    size = sum(facts["bytes"] for facts in built.files.values()) / 1e6
    limits = f"up to {longest.batch[2]} texts of {longest.length} pieces"
    return f"{built.precision}, for {built.runs_on}, {limits}, {size:.1f} MB"


def _parity(report: dict[str, Any]) -> str:
    return (
        f"within {max(report['prefix_error'], report['output_error']):.1e} of eager PyTorch,"
        f" {report['differing']} of {report['decisions']} decisions differ"
    )
