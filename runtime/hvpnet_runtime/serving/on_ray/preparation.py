"""The deployment that prepares tweets. It has neither backend nor grounder, so it scales apart."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray.serve.handle import DeploymentHandle

from hvpnet_runtime.backends.grounder import MAX_GROUNDED
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.preprocessing.pictures import Jpeg
from hvpnet_runtime.preprocessing.prepare import Preparer
from hvpnet_runtime.serving.metrics import Metrics
from hvpnet_runtime.serving.on_ray.grounding import RemoteFinder
from hvpnet_runtime.serving.on_ray.metrics import RayInstruments
from hvpnet_runtime.serving.preparation import MeasuredFinder, Preparation
from hvpnet_runtime.types import ObjectSource

_PICTURES = MAX_GROUNDED
"""Pictures of one replica that are prepared at the same time where objects are found, so that their searches share
runs. Each of them is held decoded until its search is answered: 48 MB for one of 16 megapixels."""


class RayPreparation(Preparation):
    """Tweets of one bundle to what the backend reads.

    Args:
        name: of the bundle.
        path: its folder.
        grounding: the deployment that finds objects; None where nothing does.
        window: see `Pipeline.load`.
        max_pixels: of one picture, if the bundle allows so many.
        jpeg: see `Pipeline.load`.
        objects: see `Pipeline.load`.

    Raises:
        BundleError: the bundle is missing, damaged or edited.
        MissingExtraError: a package that finding objects needs is not installed.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        grounding: "DeploymentHandle[Any] | None",
        *,
        window: bool,
        max_pixels: int,
        jpeg: Jpeg,
        objects: ObjectSource | None,
    ) -> None:
        bundle, metrics, find, threads = Bundle.load(path), Metrics(RayInstruments()), None, None
        if grounding is not None:
            find = MeasuredFinder(name, RemoteFinder(bundle, grounding), metrics)
            threads = ThreadPoolExecutor(_PICTURES, "hvpnet-pictures-found")
        preparer = Preparer(bundle, window=window, max_pixels=max_pixels, jpeg=jpeg, objects=objects, find=find)
        super().__init__(name, preparer, metrics, threads)
