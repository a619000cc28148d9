"""What `graph_specs` says of the graphs is what their files say, for every kind of model in every precision."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from kinds import KINDS
from normalised import normalised_by

from hvpnet import HVPNeT
from hvpnet.modeling.visual_prefix import normalise
from hvpnet_export.graphs import export_text, export_vision
from hvpnet_export.model_facts import manifest_of
from hvpnet_export.parity_cases import random_cases
from hvpnet_export.precision import to_precision
from hvpnet_export.quantise import quantise
from hvpnet_runtime.bundle import QUANTISED, Precision, TensorSpec, graph_specs

pytestmark = pytest.mark.heavy

Written = tuple[HVPNeT, Precision, Path]

EVERY = [(kind, precision) for kind in KINDS for precision in get_args(Precision)]


@pytest.fixture(scope="module", params=EVERY, ids=lambda each: "-".join((*each[0], each[1])))
def written(request: pytest.FixtureRequest, graphs_of: Any, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A model, a precision, and the folder of its graphs."""
    kind, precision = request.param
    exported = graphs_of(*kind)
    model, folder = exported.model, tmp_path_factory.mktemp(precision)
    source: Path = exported.graphs[0].parent
    if QUANTISED.get(precision, precision) == "fp16":
        source, narrow = tmp_path_factory.mktemp("fp16"), to_precision(model, "fp16")
        if model.config.pictures:
            export_vision(narrow, source / "vision.onnx", "fp16")
        export_text(narrow, source / "text.onnx", "fp16")
    if precision not in QUANTISED:
        return model, precision, source
    quantise(model, source, folder, list(random_cases(model))[:2], precision)
    return model, precision, folder


def described(value: Any) -> TensorSpec:
    """An input or output, as the file has it."""
    tensor = value.type.tensor_type
    axes = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), axes)


def test_inputs_and_outputs_are_those_of_the_files(written: Written) -> None:
    model, precision, folder = written
    specs = graph_specs(manifest_of(model.config), precision)
    assert {path.name for path in folder.iterdir()} == {f"{name}.onnx" for name in specs}
    for name, spec in specs.items():
        assert spec.name == name
        graph = onnx.load(folder / f"{name}.onnx").graph
        assert tuple(map(described, graph.input)) == spec.inputs
        assert [described(value) for value in graph.output] == [spec.output]


def test_every_vision_graph_normalises_its_pixels_in_every_bit(written: Written, request_for: Any) -> None:
    model, _, folder = written
    if not model.config.pictures:
        assert not (folder / "vision.onnx").exists()
        return
    pixels, _ = request_for(model, 2, 1, 3)
    found = normalised_by(folder / "vision.onnx", pixels.numpy())
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, normalise(pixels).numpy())
