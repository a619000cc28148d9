"""The site, built: what stands in the Markdown stands in the pages."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    subprocess.run(command, cwd=ROOT, check=True)
    return out


def test_every_heading_and_every_block_of_code_is_one(site: Path) -> None:
    """A fence that the site does not understand would run on to the next one, and swallow what is between."""
    for source in ROOT.glob("docs/*.md"):
        markdown, page = source.read_text("utf-8"), (site / f"{source.stem}.html").read_text("utf-8")
        outside = re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
        headings = [line.lstrip("# ").replace("`", "") for line in outside.splitlines() if line.startswith("#")]
        shown = [re.sub("<[^>]+>", "", each) for each in re.findall(r"<h[1-6] id=[^>]+>(.*?)<a class=", page)]
        assert [each for each in headings if each not in shown] == [], source.name
        assert "```" not in page, source.name
