"""Where the checkout is, and the folder of golden cases and real tweets beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
