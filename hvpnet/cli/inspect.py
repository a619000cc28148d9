"""Check a bundle's files against their digests and show what the bundle holds."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hvpnet.cli.options import add_json, show
from hvpnet_runtime.bundle import Bundle


@dataclass(frozen=True)
class Options:
    """What `hvpnet inspect` was asked to do."""

    bundle: Path
    json: bool

    @classmethod
    def parse(cls, parsed: argparse.Namespace) -> Self:
        """From the parsed command line."""
        return cls(parsed.bundle, parsed.json)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", type=Path)
    add_json(parser)


def run(options: Options) -> int:
    """Show the manifest, in full with --json."""
    manifest = dict(Bundle.load(options.bundle).manifest)
    if options.json:
        show(manifest, as_json=True)
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
        },
        as_json=False,
    )
    return 0


def _parity(report: dict[str, Any]) -> str:
    return (
        f"within {max(report['prefix_error'], report['output_error']):.1e} of eager PyTorch,"
        f" {len(report['disagreements'])} of {report['decisions']} decisions differ"
    )
