"""`--jpeg` reaches what decodes pictures, whatever verb it is given to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hvpnet.cli import main, serve
from hvpnet_runtime import Pipeline, Tweet
from hvpnet_runtime.bulk import Job, annotate
from hvpnet_runtime.serving.in_process import InProcess
from hvpnet_runtime.serving.settings import Settings


@pytest.fixture
def large(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (1040, 1100, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.jpg")
    return tmp_path / "large.jpg"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """At one in how many of their pixels pictures were decoded since it was asked last."""
    from hvpnet_runtime.preprocessing import encoded_picture

    seen: list[int] = []
    decode = encoded_picture.decoded

    def noted(image: Image.Image, name: str, shrink: int = 1) -> Image.Image:
        seen.append(shrink)
        return decode(image, name, shrink)

    def take() -> list[int]:
        taken, seen[:] = list(seen), []
        return taken

    monkeypatch.setattr(encoded_picture, "decoded", noted)
    return take


def test_predict(ner_bundle: Path, large: Path, decoded: Callable[[], list[int]]) -> None:
    for options, shrink in (((), 1), (("--jpeg", "full"), 1), (("--jpeg", "scaled"), 2)):
        assert main(["predict", str(ner_bundle), "--text", "Jordan", "--image", str(large), *options]) == 0
        assert decoded() == [shrink]


def test_another_value_is_refused(ner_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("predict", "annotate", "evaluate", "serve"):
        with pytest.raises(SystemExit):
            main([verb, str(ner_bundle), "--jpeg", "half"])
        assert "--jpeg: invalid choice: 'half'" in capsys.readouterr().err


def test_bulk_runs(ner_bundle: Path, large: Path, tmp_path: Path, decoded: Callable[[], list[int]]) -> None:
    (tmp_path / "tweets.jsonl").write_text(json.dumps({"text": "Jordan", "image": "large.jpg"}))
    job = Job(ner_bundle, tmp_path / "tweets.jsonl", tmp_path / "out.jsonl", jpeg="scaled")
    report = annotate(job)
    assert (report.annotated, report.rejected) == (1, {})
    assert decoded() == [2]


@pytest.mark.parametrize(("given", "shrink"), [({}, 1), ({"jpeg": "scaled"}, 2)])
def test_the_service(
    ner_bundle: Path, large: Path, decoded: Callable[[], list[int]], given: dict[str, Any], shrink: int
) -> None:
    """It decodes as it is told to, and a picture once, whatever bundle and request show it again."""
    import asyncio

    service = InProcess(Settings.parse({"bundles": {"people": ner_bundle}, "threads": 1, **given}), print)
    try:
        tweets = [Tweet(text="Jordan", image=large.read_bytes())]
        first, again = (asyncio.run(service.extract("people", tweets)) for _ in range(2))
        assert first == again
        assert decoded() == [shrink]
        with Pipeline.load(ner_bundle, **given) as pipeline:
            assert pipeline(tweets) == list(first)
    finally:
        service.close()


def test_serve_overrides_its_settings(ner_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('jpeg = "scaled"\nobjects = "given"\n')
    for jpeg, objects, expected in (("full", "none", ("full", "none")), (None, None, ("scaled", "given"))):
        options = serve.Options(
            bundle=[str(ner_bundle)], token_env=None, token_file=None, settings=tmp_path / "settings.toml", debug=False,
            host="127.0.0.1", port=8000, ray=False, access_log=False, backend=None, precision=None, device=None,
            jpeg=jpeg, objects=objects,
        )  # fmt: skip
        settings = serve._settings(options)
        assert (settings.jpeg, settings.objects) == expected
