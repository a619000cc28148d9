"""Vision graphs opened where the first nodes end: at the tensor of normalised pictures, float32 [N, 3, 224, 224]."""

from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from hvpnet_export.graphs import NORMALISED


def normalised_by(vision: Path, pixels: Any) -> Any:
    """What a vision graph makes of its pixels, uint8 [N, 224, 224, 3]: a copy of the graph answers this too."""
    model = onnx.load(vision)
    shape = ["pictures", 3, 224, 224]
    model.graph.output.append(onnx.helper.make_tensor_value_info(NORMALISED, onnx.TensorProto.FLOAT, shape))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (normalised,) = session.run([NORMALISED], {"images": pixels})
    return normalised


def behind_normalised(vision: Path) -> Any:
    """A session of the rest of a vision graph, which reads normalised pictures."""
    typed = onnx.shape_inference.infer_shapes(onnx.load(vision))
    rest = onnx.utils.Extractor(typed).extract_model([NORMALISED], ["prefix"])
    return ort.InferenceSession(rest.SerializeToString(), providers=["CPUExecutionProvider"])
