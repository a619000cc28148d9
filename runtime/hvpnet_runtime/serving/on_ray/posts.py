"""The deployment that prepares posts for two bundles, and makes triples of what the two answer."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray.serve.handle import DeploymentHandle

from hvpnet_runtime.backends.grounder import MAX_GROUNDED
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.preprocessing.prepare import Prepared, Preparer
from hvpnet_runtime.serving.metrics import Metrics
from hvpnet_runtime.serving.on_ray.grounding import RemoteFinder
from hvpnet_runtime.serving.on_ray.metrics import RayInstruments
from hvpnet_runtime.serving.posts import PostPreparers
from hvpnet_runtime.serving.preparation import MeasuredFinder, Preparation
from hvpnet_runtime.serving.settings import Settings
from hvpnet_runtime.triples.posts import AskedPost, PreparedPost
from hvpnet_runtime.types import EntityResult, Rejection, Result, TripleResult, Tweet


class RayPosts:
    """Posts to what backends read, and what they answer to triples. It keeps nothing between two calls.

    What a call rejects goes through the others as it came.

    Args:
        bundles: folders of all that are served, by name.
        groundings: the deployment that finds objects for a bundle, where one does.
        settings: of the service.

    Raises:
        BundleError: a bundle is missing, damaged or edited.
        MissingExtraError: a package that finding objects needs is not installed.
    """

    def __init__(
        self, bundles: Mapping[str, Path], groundings: Mapping[str, DeploymentHandle[Any]], settings: Settings
    ) -> None:
        self._metrics = Metrics(RayInstruments())
        loaded = {name: Bundle.load(path) for name, path in bundles.items()}
        preparers: dict[str, Preparer] = {}
        for name, bundle in loaded.items():
            find = None
            if name in groundings:
                find = MeasuredFinder(name, RemoteFinder(bundle, groundings[name]), self._metrics)
            preparers[name] = Preparer(
                bundle,
                window=settings.window,
                max_pixels=settings.limits.picture_pixels,
                jpeg=settings.jpeg,
                objects=settings.objects,
                find=find,
            )
        self._threads = ThreadPoolExecutor(MAX_GROUNDED, "hvpnet-pictures-found") if groundings else None
        self._posts = PostPreparers(loaded, preparers, settings.triples)

    def prepare(
        self, entities: str, relations: str, posts: Sequence[Tweet]
    ) -> Sequence[Prepared] | Sequence[Rejection]:
        """What the model of entities reads.

        Raises:
            InputError: the two bundles do not go together.
        """
        return Preparation(entities, self._posts.of(entities, relations), self._metrics, self._threads)(posts)

    def ask(
        self,
        entities: str,
        relations: str,
        posts: Sequence[PreparedPost] | Sequence[Rejection],
        found: Sequence[Result] | Sequence[Rejection],
    ) -> Sequence[AskedPost] | Sequence[Rejection]:
        """What is asked about the entities that were found."""
        ask = self._posts.of(entities, relations).ask
        return [
            ask(post, each)
            for post, each in zip(posts, found, strict=True)
            if isinstance(post, PreparedPost) and isinstance(each, EntityResult)
        ] or [post for post in posts if isinstance(post, Rejection)]

    def pairs(self, asked: Sequence[AskedPost] | Sequence[Rejection]) -> Sequence[Prepared] | Sequence[Rejection]:
        """What the model of relations reads."""
        pairs = [pair for each in asked if isinstance(each, AskedPost) for pair in each.prepared]
        return pairs or [each for each in asked if isinstance(each, Rejection)]

    def settle(
        self,
        entities: str,
        relations: str,
        asked: Sequence[AskedPost] | Sequence[Rejection],
        answers: Sequence[Result] | Sequence[Rejection],
    ) -> Sequence[TripleResult] | Sequence[Rejection]:
        """The triples."""
        posts = [each for each in asked if isinstance(each, AskedPost)]
        told = [each for each in answers if not isinstance(each, Rejection)]
        settled = self._posts.of(entities, relations).settle_all(posts, told)
        return settled or [each for each in asked if isinstance(each, Rejection)]
