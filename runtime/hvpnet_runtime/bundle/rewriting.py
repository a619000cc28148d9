"""A bundle that is to say something else of itself: the same files with another manifest."""

import os
import shutil
import tempfile
from pathlib import Path

from hvpnet_runtime.bundle.manifest import Manifest
from hvpnet_runtime.bundle.staging import flush


def rewrite_manifest(bundle: Path, manifest: Manifest) -> None:
    """Give a bundle another manifest, in one step: at any time it has the old or the new one, whole.

    Args:
        bundle: its folder.
        manifest: of the same files.

    Raises:
        OSError: the disk refuses. The bundle is as it was.
    """
    file = bundle / "manifest.json"
    descriptor, name = tempfile.mkstemp(prefix=".manifest.", suffix=".json", dir=bundle)
    written = Path(name)
    try:
        os.close(descriptor)
        written.write_text(manifest.to_json(), "utf-8")
        shutil.copymode(file, written)
        flush(written)
        written.replace(file)
    finally:
        written.unlink(missing_ok=True)  # it is no longer there once it has taken the place
