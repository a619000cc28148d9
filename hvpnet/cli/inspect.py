"""Check a bundle's files against their digests and show what the bundle holds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hvpnet.cli.options import ShownOptions, argument, show
from hvpnet_runtime.backends.tensorrt.record import BuildRecord, built_engines
from hvpnet_runtime.bundle import SCHEMA_VERSION, Bundle, FileDigest, GrounderSpec
from hvpnet_runtime.errors import StaleEngineError


@dataclass(frozen=True, kw_only=True)
class Options(ShownOptions):
    """What `hvpnet inspect` was asked to do."""

    bundle: Path = argument()


def run(options: Options) -> int:
    """Show the manifest and the engines that were built; in full with --json."""
    bundle = Bundle.load(options.bundle)
    manifest, engines = bundle.manifest, built_engines(bundle)
    if options.json:
        records = {
            name: asdict(built) if isinstance(built, BuildRecord) else {"error": str(built)}
            for name, built in engines.items()
        }
        show(manifest.to_dict() | {"engines": records}, as_json=True)
        return 0
    sizes = asdict(manifest.sizes) | asdict(manifest.limits) | {"max_pixels": manifest.preprocessing.max_pixels}
    show(
        {
            "bundle": options.bundle,
            "schema": SCHEMA_VERSION,
            "task": manifest.task,
            "variant": manifest.variant,
            "labels": manifest.labels,
            **sizes,
            "parity": {name: _parity(report) for name, report in manifest.parity.items()},
            **(_grounder(manifest.grounder) if manifest.grounder else {}),
            "produced_by": [f"{name} {version}" for name, version in manifest.produced_by.items()],
            "files": {name: _file(facts) for name, facts in manifest.files.items()},
            "engines": {name: _engine(built) for name, built in engines.items()},
        },
        as_json=False,
    )
    return 0


def _grounder(spec: GrounderSpec) -> dict[str, object]:
    return {
        "grounder": f"{spec.kind}, pictures of {spec.size} pixels, {' and '.join(spec.precision)}",
        "queries": spec.words if spec.queries == "fixed" else f"of each text, up to {spec.max_length} pieces",
        "threshold": spec.threshold,
        "parity_grounder": {name: report["summary"] for name, report in spec.parity.items()},
    }


def _file(facts: FileDigest) -> str:
    return f"{facts.bytes / 1e6:.1f} MB, sha256 {facts.sha256[:12]}"


def _engine(built: BuildRecord | StaleEngineError) -> str:
    if isinstance(built, StaleEngineError):
        return str(built)
    longest = built.profiles["text"][-1]
    size = sum(facts.bytes for facts in built.files.values()) / 1e6
    limits = f"up to {longest.batch[2]} texts of {longest.length} pieces"
    facts = [built.precision, f"for {built.runs_on}", limits, built.attention, f"{size:.1f} MB"]
    return ", ".join(fact for fact in facts if fact)


def _parity(report: Mapping[str, Any]) -> str:
    return (
        f"within {max(report['prefix_error'], report['output_error']):.1e} of eager PyTorch,"
        f" {report['differing']} of {report['decisions']} decisions differ"
    )
