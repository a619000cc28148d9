"""Errors travel between processes as they are: Ray, multiprocessing and concurrent.futures pickle them."""

import copy
import pickle

import pytest

import hvpnet
import hvpnet_runtime
from hvpnet_runtime import HvpnetError, InputError, MissingExtraError, Rejection, errors
from hvpnet_runtime.bulk.worker import Failed
from hvpnet_runtime.errors import brief, one_line
from hvpnet_runtime.serving.errors import TweetsError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HvpnetError)]
SAID = "what and how"


def travelled(error: Exception) -> Exception:
    found: Exception = pickle.loads(pickle.dumps(error))
    return found


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not MissingExtraError])
def test_errors_keep_type_and_message(kind: type[HvpnetError]) -> None:
    found = travelled(kind(SAID))
    assert type(found) is kind
    assert str(found) == SAID
    assert type(found)(f"tweet 3: {found}").args == (f"tweet 3: {SAID}",)


def test_a_missing_extra_keeps_its_words() -> None:
    error = MissingExtraError("openvino", "openvino", "the backend openvino")
    for found in (travelled(error), copy.copy(error), travelled(Failed(error, "Traceback").error)):
        assert type(found) is MissingExtraError
        assert str(found) == "the backend openvino needs the package openvino: pip install 'hvpnet[openvino]'"
        assert isinstance(found, ImportError)


def test_rejected_tweets_of_a_request_travel() -> None:
    rejections = [Rejection.of(row, None, InputError(f"no {row}")) for row in (2, 0)]
    found = travelled(TweetsError(rejections))
    assert isinstance(found, TweetsError)
    assert str(found) == "tweet 0: no 0; tweet 2: no 2"
    assert found.rejections == rejections[::-1]


def test_every_error_of_a_pipeline_is_exported_by_both_doors() -> None:
    for name in (
        *("HvpnetError", "BundleError", "BackendError", "StaleEngineError", "MissingExtraError"),
        *("InputError", "TextError", "PictureError"),
    ):
        assert getattr(hvpnet, name) is getattr(hvpnet_runtime, name) is getattr(errors, name)
        assert name in hvpnet.__all__
        assert name in hvpnet_runtime.__all__


def test_no_value_makes_a_long_message() -> None:
    for value in (
        [["A" * 1000] * 8] * 8,
        {"a" * 999: {"b": ["c" * 999] * 9}},
        "x" * 10**6,
        b"y" * 10**6,
        10**999,
        10**9999,
    ):
        assert len(brief(value)) <= 203
    assert brief("short") == "'short'"
    assert len(one_line(ValueError("a\n" * 10**5))) <= 1003
    assert one_line(ValueError("a\nb")) == "a b"
