"""Give a bundle a grounder, which finds objects in pictures, in place of the one that it has, if any."""

from dataclasses import dataclass
from pathlib import Path

from hvpnet.cli.grounder_options import GrounderOptions, grounder_option
from hvpnet.cli.options import ShownOptions, argument, progress, show
from hvpnet.files import require_grounder
from hvpnet_runtime.bundle import read_manifest, require_pictures


@dataclass(frozen=True, kw_only=True)
class Options(GrounderOptions, ShownOptions):
    """What `hvpnet ground add` was asked to do."""

    bundle: Path = argument("is rewritten; it stays as it is if the grounder cannot be added")
    grounder: Path = grounder_option(required=True)


def run(options: Options) -> int:
    """Load, export, verify, rewrite."""
    manifest = read_manifest(options.bundle)
    require_pictures(manifest)
    require_grounder(options.grounder, options.grounder_tokenizer)
    progress("loading PyTorch and the grounder")
    from hvpnet.modeling.grounding import load_grounder
    from hvpnet_export import add_grounder

    grounder = load_grounder(options.grounder, options.grounder_tokenizer)
    spec = add_grounder(options.bundle, grounder, options.words(manifest.task), progress=progress)
    show(
        {
            "bundle": str(options.bundle),
            "grounder": spec.kind,
            "queries": spec.queries,
            "words": spec.words,
            "precision": spec.precision,
            "parity": {name: report["summary"] for name, report in spec.parity.items()},
        },
        as_json=options.json,
    )
    return 0
