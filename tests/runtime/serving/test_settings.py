"""Settings: what is refused, the token, and the configuration file for a cluster."""

import pytest
import yaml
from places import ROOT
from ray.serve.schema import ServeDeploySchema

from hvpnet_runtime.serving import Settings
from hvpnet_runtime.serving.errors import SettingsError
from hvpnet_runtime.serving.settings import Token, read_settings

BUNDLES = {"bundles": {"ner": "bundle"}}
CONFIG = ROOT / "deploy" / "serve.yaml"


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({}, "bundles: Field required"),
        ({"bundles": {}}, "bundles: .* at least 1"),
        ({"bundles": {"a/b": "bundle"}}, r"bundles\.a/b"),
        (BUNDLES | {"colour": 1}, "colour: Extra"),
        (BUNDLES | {"limits": {"queue": 0}}, r"limits\.queue: .* greater than or equal to 1"),
        (BUNDLES | {"limits": {"body_bytes": "much"}}, r"limits\.body_bytes: .* integer"),
        (BUNDLES | {"limits": {"queue": 8, "tweets": 9}}, "a request of 9 tweets would never be accepted"),
        (BUNDLES | {"limits": {"queue_bytes": 8, "body_bytes": 9}}, "a body of 9 bytes would never be accepted"),
        (BUNDLES | {"inference": {"least": 2}}, "most is 1, below least, which is 2"),
        (BUNDLES | {"batching": {"wait_ms": -1}}, r"batching\.wait_ms"),
        (BUNDLES | {"jpeg": "half"}, "jpeg: .* 'full' or 'scaled'"),
        (BUNDLES | {"token": {}}, "from env or from file, one of them"),
        (BUNDLES | {"token": {"env": "A", "file": "b"}}, "from env or from file, one of them"),
    ],
)
def test_impossible_settings(values, match):
    with pytest.raises(SettingsError, match=match) as caught:
        Settings.parse(values)
    assert "\n" not in str(caught.value)


def test_the_first_bundle_is_the_default():
    assert Settings.parse({"bundles": {"b": "x", "a": "y"}}).default_bundle == "b"


def test_read_settings(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("threads = 2\n[limits]\nqueue = 64\n[inference]\nmost = 3\n", "utf-8")
    settings = Settings.parse(read_settings(file) | BUNDLES)
    assert (settings.threads, settings.limits.queue, settings.inference.least, settings.inference.most) == (2, 64, 1, 3)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert Settings.parse(read_settings(file) | BUNDLES) == settings


@pytest.mark.parametrize("text", [None, "limits = ", "\udc80", "x = " + "[" * 100_000])
def test_settings_that_cannot_be_read(tmp_path, text):
    file = tmp_path / "settings.toml"
    if text is not None:
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError, match=r"settings\.toml cannot be read"):
        read_settings(file)


def test_token_from_a_file(tmp_path):
    file = tmp_path / "token"
    for mark in ("", "\ufeff"):
        file.write_text(f"{mark} secret\n", "utf-8")
        assert Token(file=file).read() == "secret"


def test_token_from_the_environment(monkeypatch):
    monkeypatch.setenv("HVPNET_TEST_TOKEN", "secret")
    assert Token(env="HVPNET_TEST_TOKEN").read() == "secret"


def test_no_token_is_no_open_door(tmp_path):
    empty = tmp_path / "token"
    empty.write_text("\n", "utf-8")
    for token in (Token(env="HVPNET_NO_SUCH_TOKEN"), Token(file=empty), Token(file=tmp_path / "none")):
        with pytest.raises(SettingsError, match="token"):
            token.read()


def test_a_token_that_no_header_carries(monkeypatch):
    monkeypatch.setenv("HVPNET_TEST_TOKEN", "schl\u00fcssel")
    with pytest.raises(SettingsError, match="HVPNET_TEST_TOKEN has characters beyond ASCII"):
        Token(env="HVPNET_TEST_TOKEN").read()


def test_the_configuration_for_a_cluster():
    """Ray accepts it, and its application's arguments are settings."""
    config = ServeDeploySchema.model_validate(yaml.safe_load(CONFIG.read_text("utf-8")))
    (application,) = config.applications
    settings = Settings.parse(application.args)
    assert application.import_path == "hvpnet_runtime.serving.on_ray.app:build"
    assert settings.inference.most > settings.inference.least
    assert settings.token is not None
    assert config.http_options.host == "127.0.0.1"
