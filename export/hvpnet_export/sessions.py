"""Exported graphs in ONNX Runtime on the CPU, to be held against eager PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hvpnet_export.errors import ParityError
from hvpnet_runtime.backends.onnxruntime import CPU, cpu_options, load_session, require_provider
from hvpnet_runtime.bundle import Bundle, GraphName, GraphSpec, Precision
from hvpnet_runtime.bundle.files import read_regular
from hvpnet_runtime.bundle.onnx_file import require_own_weights


class Sessions:
    """The graphs of a bundle that interfaces name, in one precision.

    Args:
        bundle: a checked bundle, or a folder that is still to become one.
        specs: interfaces of the graphs.
        precision: of the graphs.

    Raises:
        BundleError: a graph cannot be loaded, or has another interface.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(self, bundle: Bundle | Path, specs: Mapping[GraphName, GraphSpec], precision: Precision) -> None:
        folder = bundle.path if isinstance(bundle, Bundle) else bundle
        runtime = require_provider(CPU, "cpu")
        self._sessions: dict[GraphName, Any] = {}
        for graph, spec in specs.items():
            name = f"onnx/{precision}/{graph}.onnx"
            content = read(bundle, name)
            require_own_weights(content, folder / name)
            options = cpu_options(runtime, precision)
            self._sessions[graph] = load_session(runtime, folder / name, content, spec, {CPU: {}}, options)

    def run(self, graph: GraphName, **inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs of a graph.

        Raises:
            ParityError: it cannot be run.
        """
        try:
            outputs = self._sessions[graph].run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        except Exception as error:  # its exception classes are private to the extension
            raise ParityError(f"ONNX Runtime cannot run the graphs: {str(error).splitlines()[0]}") from error
        return tuple(map(torch.from_numpy, outputs))


def read(bundle: Bundle | Path, name: str) -> bytes:
    """The content of a file, held against its digest where the folder is a bundle already.

    Raises:
        BundleError: it is missing, no regular file, or not what the manifest says.
    """
    return bundle.read(name) if isinstance(bundle, Bundle) else read_regular(bundle, name)
