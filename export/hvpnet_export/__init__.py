"""From a trained HVPNeT to a bundle: two ONNX graphs, tokeniser, decoder, manifest, and a parity report."""

from hvpnet_export.bundle import export_bundle
from hvpnet_export.calibration import CalibrationData
from hvpnet_export.errors import ExportError, IncompleteError, ParityError
from hvpnet_export.grounder import add_grounder
from hvpnet_export.parity import ParityReport, compare

__all__ = [
    "CalibrationData",
    "ExportError",
    "IncompleteError",
    "ParityError",
    "ParityReport",
    "add_grounder",
    "compare",
    "export_bundle",
]
