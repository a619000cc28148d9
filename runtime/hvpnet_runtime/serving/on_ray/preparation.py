"""The deployment that prepares tweets, and finds objects on the CPU. It has no backend, so it scales apart."""

from pathlib import Path

from hvpnet_runtime.backends.onnxruntime import load_cpu_grounder
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.grounding.finder import ObjectFinder
from hvpnet_runtime.preprocessing.pictures import Jpeg
from hvpnet_runtime.preprocessing.prepare import Preparer
from hvpnet_runtime.serving.metrics import Metrics
from hvpnet_runtime.serving.on_ray.metrics import RayInstruments
from hvpnet_runtime.serving.preparation import MeasuredFinder, Preparation


class RayPreparation(Preparation):
    """Tweets of one bundle to what the backend reads.

    Args:
        name: of the bundle.
        path: its folder.
        window: see `Pipeline.load`.
        max_pixels: of one picture, if the bundle allows so many.
        jpeg: see `Pipeline.load`.

    Raises:
        BundleError: the bundle is missing, damaged or edited.
    """

    def __init__(self, name: str, path: Path, *, window: bool, max_pixels: int, jpeg: Jpeg) -> None:
        bundle, metrics, find = Bundle.load(path), Metrics(RayInstruments()), None
        if bundle.manifest.grounder:
            find = MeasuredFinder(name, ObjectFinder(bundle, load_cpu_grounder(bundle)), metrics)
        preparer = Preparer(bundle, window=window, max_pixels=max_pixels, jpeg=jpeg, find=find)
        super().__init__(name, preparer, metrics)
