"""The Python model, which a repository's model.py imports. Loads inside Triton only, whose Python has pb_utils."""

import json
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from hvpnet_runtime.backends import BundleBackend, load_backend
from hvpnet_runtime.backends.base import Array
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BackendError, HvpnetError, InputError, RepositoryError, one_line
from hvpnet_runtime.pipeline import Pipeline, load_finder
from hvpnet_runtime.prefix_cache import PrefixCache
from hvpnet_runtime.preprocessing.prepare import Preparer
from hvpnet_runtime.triton.backend import TritonBackend
from hvpnet_runtime.triton.config import REQUEST, RESULT
from hvpnet_runtime.triton.requests import Request, Strings, answer
from hvpnet_runtime.triton.settings import BUNDLE, TRITON, Settings


class TritonPythonModel:
    """Answers requests; see `hvpnet_runtime.triton.requests`. Triton prescribes the class's name and its methods."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the bundle; what is wrong with it keeps the model from loading."""
        config = json.loads(args["model_config"])
        max_batch = int(config["max_batch_size"])
        if max_batch < 1:
            raise RepositoryError("config.pbtxt: max_batch_size must be 1 or more: requests have rows")
        settings = Settings.from_parameters(
            {name: value["string_value"] for name, value in config["parameters"].items()}
        )
        path = Path(args["model_repository"]) / args["model_version"] / BUNDLE
        bundle = Bundle.load(path, graphs=settings.backend != TRITON)
        if settings.backend == TRITON:
            backend: BundleBackend = TritonBackend(bundle, args["model_name"], max_batch, settings, _infer)
        else:
            backend = load_backend(bundle, settings.backend, precision=settings.precision or None)
        cache = PrefixCache(settings.cache_mib * 2**20)
        finder = load_finder(bundle, backend)
        preparer = Preparer(bundle, window=settings.window, max_length=backend.max_length, known=cache, find=finder)
        self._pipeline = Pipeline(bundle, backend, preparer, cache, finder=finder)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests that Triton batched, each with its result or its own error."""
        return [_response(each) for each in answer(self._pipeline, [_request(request) for request in requests])]

    def finalize(self) -> None:
        """Free the engines and the cache."""
        self._pipeline.close()


def _request(request: Any) -> Request:  # noqa: ANN401  pb_utils has no types
    tensors = (pb_utils.get_input_tensor_by_name(request, own.name) for own in REQUEST)
    arrays: list[Any] = [None if tensor is None else tensor.as_numpy() for tensor in tensors]
    return Request(*arrays)


def _response(answered: Strings | Exception) -> Any:  # noqa: ANN401
    if not isinstance(answered, Exception):
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(RESULT.name, answered)])
    if not isinstance(answered, HvpnetError):
        pb_utils.Logger.log_error("".join(traceback.format_exception(answered)))
    message = f"{type(answered).__name__}: {one_line(answered)}"
    code = pb_utils.TritonError.INVALID_ARG if isinstance(answered, InputError) else pb_utils.TritonError.INTERNAL
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def _infer(model: str, inputs: Mapping[str, Array], output: str) -> Array:
    request = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=[output],
        inputs=[pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in inputs.items()],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    )
    response = request.exec()
    if response.has_error():
        raise BackendError(f"{model} failed: {response.error().message()}")
    array: Array = pb_utils.get_output_tensor_by_name(response, output).as_numpy()
    return array
