"""Virtual environments as a user has them."""

import os
import sys
from pathlib import Path


def see_packages(venv):
    """Let a virtual environment see the packages that these tests run with, after its own."""
    (site,) = venv.glob("lib/python*/site-packages")
    visible = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "visible.pth").write_text("\n".join(visible), "utf-8")
    return venv


def environment(**more):
    """That of a user's shell: nothing leads to the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "VIRTUAL_"))}
    return kept | more
