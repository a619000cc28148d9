"""Stands in for Triton's ONNX Runtime backend, which the server of the tests lacks: runs a model's model.onnx."""

import json
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        return config

    def initialize(self, args):
        self.config = json.loads(args["model_config"])
        path = Path(args["model_repository"]) / args["model_version"] / self.config["default_model_filename"]
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        feeds = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        names = [output["name"] for output in self.config["output"]]
        outputs = self.session.run(names, feeds)
        return pb_utils.InferenceResponse([pb_utils.Tensor(*pair) for pair in zip(names, outputs, strict=True)])
