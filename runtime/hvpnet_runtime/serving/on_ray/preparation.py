"""The deployment that prepares tweets. It has neither backend nor grounder, so it scales apart."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray.serve.handle import DeploymentHandle

from hvpnet_runtime.backends.grounder import MAX_GROUNDED
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.preprocessing.prepare import Preparer
from hvpnet_runtime.serving.metrics import Metrics
from hvpnet_runtime.serving.on_ray.grounding import RemoteFinder
from hvpnet_runtime.serving.on_ray.metrics import RayInstruments
from hvpnet_runtime.serving.preparation import MeasuredFinder, Preparation
from hvpnet_runtime.serving.settings import Settings

_PICTURES = MAX_GROUNDED
"""Pictures of one replica that are prepared at the same time where objects are found, so that their searches share
runs. Each of them is held decoded until its search is answered: 48 MB for one of 16 megapixels."""


class RayPreparation(Preparation):
    """Tweets of one bundle to what the backend reads.

    Args:
        name: of the bundle.
        grounding: the deployment that finds objects; None where nothing does.
        settings: of the service.

    Raises:
        BundleError: the bundle is missing, damaged or edited.
        MissingExtraError: a package that finding objects needs is not installed.
    """

    def __init__(self, name: str, grounding: "DeploymentHandle[Any] | None", settings: Settings) -> None:
        metrics = Metrics(RayInstruments())
        preparer = remote_preparer(name, Bundle.load(settings.bundles[name]), grounding, settings, metrics)
        super().__init__(name, preparer, metrics, None if grounding is None else searching_threads())


def remote_preparer(
    name: str, bundle: Bundle, grounding: "DeploymentHandle[Any] | None", settings: Settings, metrics: Metrics
) -> Preparer:
    """What prepares tweets for a bundle of this name, where its backend, and its grounder if it has one, are elsewhere.

    Raises:
        MissingExtraError: a package that finding objects needs is not installed.
    """
    return Preparer(
        bundle,
        window=settings.window,
        max_pixels=settings.limits.picture_pixels,
        jpeg=settings.jpeg,
        objects=settings.objects,
        find=None if grounding is None else MeasuredFinder(name, RemoteFinder(bundle, grounding), metrics),
    )


def searching_threads() -> ThreadPoolExecutor:
    """Threads for the pictures that are prepared at the same time."""
    return ThreadPoolExecutor(_PICTURES, "hvpnet-pictures-found")
