"""The deployment that prepares posts for two bundles, and makes triples of what the two answer."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ray.serve.handle import DeploymentHandle

from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.preprocessing.prepare import Prepared
from hvpnet_runtime.serving.metrics import Metrics
from hvpnet_runtime.serving.on_ray.metrics import RayInstruments
from hvpnet_runtime.serving.on_ray.preparation import remote_preparer, searching_threads
from hvpnet_runtime.serving.posts import PostPreparers
from hvpnet_runtime.serving.preparation import Preparation
from hvpnet_runtime.serving.settings import Settings
from hvpnet_runtime.triples.posts import AskedPost, PreparedPost, all_pairs
from hvpnet_runtime.types import Rejection, Result, TripleResult, Tweet

_Good = TypeVar("_Good")


class RayPosts:
    """Posts to what backends read, and what they answer to triples. It keeps nothing between two calls.

    What a call rejects goes through the others as it came.

    Args:
        groundings: the deployment that finds objects for a bundle, where one does.
        settings: of the service, whose bundles are all that are served.

    Raises:
        BundleError: a bundle is missing, damaged or edited.
        MissingExtraError: a package that finding objects needs is not installed.
    """

    def __init__(self, groundings: Mapping[str, DeploymentHandle[Any]], settings: Settings) -> None:
        self._metrics = Metrics(RayInstruments())
        bundles = {name: Bundle.load(path) for name, path in settings.bundles.items()}
        preparers = {
            name: remote_preparer(name, bundle, groundings.get(name), settings, self._metrics)
            for name, bundle in bundles.items()
        }
        self._threads = searching_threads() if groundings else None
        self._posts = PostPreparers(bundles, preparers, settings.triples)

    def prepare(
        self, entities: str, relations: str, posts: Sequence[Tweet]
    ) -> Sequence[Prepared] | Sequence[Rejection]:
        """What the model of entities reads.

        Raises:
            UnknownBundleError: the two bundles do not go together.
        """
        return Preparation(entities, self._posts.of(entities, relations), self._metrics, self._threads)(posts)

    def ask(
        self,
        entities: str,
        relations: str,
        posts: Sequence[PreparedPost | Rejection],
        found: Sequence[Result | Rejection],
    ) -> Sequence[AskedPost | Rejection]:
        """What is asked about the entities that were found."""
        good, bad = _parted(posts)
        results = [each for each in found if not isinstance(each, Rejection)]
        return bad or list(self._posts.of(entities, relations).ask(good, results, self._threads))

    def pairs(self, asked: Sequence[AskedPost | Rejection]) -> Sequence[Prepared | Rejection]:
        """What the model of relations reads."""
        good, bad = _parted(asked)
        return bad or all_pairs(good)

    def settle(
        self,
        entities: str,
        relations: str,
        asked: Sequence[AskedPost | Rejection],
        answers: Sequence[Result | Rejection],
    ) -> Sequence[TripleResult | Rejection]:
        """The triples."""
        good, bad = _parted(asked)
        results = [each for each in answers if not isinstance(each, Rejection)]
        return bad or self._posts.of(entities, relations).settle_all(good, results)


def _parted(outcomes: Sequence[_Good | Rejection]) -> tuple[list[_Good], list[Rejection]]:
    """What can be worked on, and what was rejected."""
    rejected = [each for each in outcomes if isinstance(each, Rejection)]
    return [each for each in outcomes if not isinstance(each, Rejection)], rejected
