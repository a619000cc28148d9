"""What prepares posts for two of the bundles that are served."""

from collections.abc import Mapping
from threading import Lock

from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import InputError
from hvpnet_runtime.preprocessing.prepare import Preparer
from hvpnet_runtime.serving.errors import UnknownBundleError
from hvpnet_runtime.serving.settings import Triples
from hvpnet_runtime.triples.agreement import Agreement
from hvpnet_runtime.triples.pipeline import check_bundles
from hvpnet_runtime.triples.posts import PostPreparer


class PostPreparers:
    """Makes what prepares posts when it is first asked for. Thread-safe.

    Args:
        bundles: all that are served, by name.
        preparers: of each; bundles may still be added to both.
        settings: of triples.
    """

    def __init__(self, bundles: Mapping[str, Bundle], preparers: Mapping[str, Preparer], settings: Triples) -> None:
        self._bundles, self._preparers, self._settings = bundles, preparers, settings
        self._made: dict[tuple[str, str], PostPreparer] = {}
        self._lock = Lock()

    def of(self, entities: str, relations: str) -> PostPreparer:
        """For the two bundles of these names.

        Raises:
            UnknownBundleError: they do not go together.
        """
        with self._lock:
            if (entities, relations) not in self._made:
                settings = self._settings
                agreement = self._agreement(entities, relations)
                self._made[entities, relations] = PostPreparer(
                    self._preparers[entities],
                    self._preparers[relations],
                    agreement,
                    max_pairs=settings.max_pairs,
                    threshold=settings.threshold,
                )
            return self._made[entities, relations]

    def _agreement(self, entities: str, relations: str) -> Agreement:
        bundles = self._bundles[entities], self._bundles[relations]
        try:
            return check_bundles(*bundles, any_types=self._settings.any_types)
        except InputError as error:
            reason = str(error).replace("any_types=True", "the setting triples.any_types")
            raise UnknownBundleError(f"{entities} and {relations} are not served together: {reason}") from error
