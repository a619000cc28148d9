"""A bundle that is to say something else of itself: the same files with another manifest."""

from pathlib import Path

from hvpnet_runtime.bundle.manifest import Manifest
from hvpnet_runtime.bundle.staging import link_files, staged


def rewrite_manifest(bundle: Path, manifest: Manifest) -> None:
    """Give a bundle another manifest; at any time it is there whole, with the old or the new one.

    Args:
        bundle: its folder.
        manifest: of the same files.

    Raises:
        OSError: the disk refuses. The bundle is as it was.
    """
    folder = bundle.resolve()
    with staged(folder, replace=True) as stage:
        link_files(folder, stage, {"manifest.json"})
        (stage / "manifest.json").write_text(manifest.to_json(), "utf-8")
