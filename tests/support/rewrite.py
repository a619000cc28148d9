"""Change a bundle so that its digests still agree."""

import json
from hashlib import sha256
from pathlib import Path

from hvpnet_runtime import Bundle


def rewrite(bundle: Path, name: str, content: bytes) -> None:
    """Put other bytes in the place of a file, and their digest into the manifest."""
    (bundle / name).write_bytes(content)
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    manifest["files"][name] = {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def resaved(bundle: Bundle, path: Path) -> Bundle:
    """The bundle, with the digest of what was written at a path."""
    rewrite(bundle.path, path.relative_to(bundle.path).as_posix(), path.read_bytes())
    return Bundle.load(bundle.path)
