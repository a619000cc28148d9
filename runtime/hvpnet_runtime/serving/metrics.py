"""What the service measures, and how the measurements of its many processes become one page.

Ray collects the metrics of all processes of a node and exports them on a port of that node. `NodeMetrics` reads these
pages and puts them together, so that `/metrics` is complete and the same whichever replica answers it; a registry
inside the replica would hold that replica's share only.
"""

import logging
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from ray.serve.metrics import Counter, Histogram

from hvpnet_runtime.serving.errors import UnavailableError

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
TWEETS = (1, 2, 4, 8, 16, 32, 64, 128)

_OURS = "ray_hvpnet_"
_NOISE = ("otel_scope_", "SessionName", "Version", "Component")  # the same in every series
_READ_SECONDS = 5
_READERS = 16

_log = logging.getLogger(__name__)
_nodes = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # reached directly, whatever http_proxy says


class Metrics:
    """The instruments. Ray adds the deployment and the replica, and `ray_` before the names."""

    def __init__(self) -> None:
        by_stage, by_bundle = ("bundle", "stage"), ("bundle",)
        says = "Seconds by stage: prepare and inference of a batch, queue of a call, total of a request"
        self._stage = Histogram("hvpnet_stage_seconds", says, list(SECONDS), by_stage)
        self._spent = Counter("hvpnet_stage_spent_seconds", "Sum of the stage's seconds", by_stage)
        self._batch = Histogram("hvpnet_batch_tweets", "Tweets in one run of the backend", list(TWEETS), by_bundle)
        self._run = Counter("hvpnet_batched_tweets", "Tweets that the backend ran", by_bundle)
        self._tweets = Counter("hvpnet_tweets", "Tweets answered", by_bundle)
        self._hits = Counter("hvpnet_cache_hits", "Pictures found in the prefix cache", by_bundle)
        self._misses = Counter("hvpnet_cache_misses", "Pictures not in the cache", by_bundle)
        self._errors = Counter("hvpnet_errors", "Requests refused or failed", ("type",))

    def stage(self, bundle: str, stage: str, seconds: float) -> None:
        """One stage took so long."""
        tags = {"bundle": bundle, "stage": stage}
        self._stage.observe(seconds, tags)
        self._spent.inc(seconds, tags)

    def batch(self, bundle: str, tweets: int, hits: int, misses: int) -> None:
        """The backend ran once."""
        self._batch.observe(tweets, {"bundle": bundle})
        for counter, count in ((self._run, tweets), (self._hits, hits), (self._misses, misses)):
            if count:
                counter.inc(count, {"bundle": bundle})

    def answered(self, bundle: str, tweets: int, seconds: float) -> None:
        """A request was answered."""
        self._tweets.inc(tweets, {"bundle": bundle})
        self.stage(bundle, "total", seconds)

    def error(self, name: str) -> None:
        """A request was refused, or failed."""
        self._errors.inc(1, {"type": name})


class NodeMetrics(Collector):
    """The service's metrics on the pages of several nodes, for `prometheus_client.generate_latest`.

    A page that cannot be read is missing; the gauge `ray_hvpnet_nodes_unread` counts them, the log names them.

    Args:
        urls: the pages of the nodes. The series on them are distinct: each is labelled with its node and process.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls

    def collect(self) -> Iterator[Metric]:
        """Read the pages.

        Raises:
            UnavailableError: none of them can be read.
        """
        with ThreadPoolExecutor(_READERS) as readers:
            pages = list(readers.map(_read, self._urls))
        failures = [page for page in pages if isinstance(page, Exception)]
        if len(failures) == len(pages):
            raise UnavailableError(f"no node's metrics can be read: {failures[0] if failures else 'there is no node'}")
        families: dict[str, Metric] = {}
        for page in pages:
            for found in [] if isinstance(page, Exception) else page:
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                family.samples += map(_without_noise, filter(_is_exact, found.samples))
        yield from families.values()
        yield GaugeMetricFamily(f"{_OURS}nodes_unread", "Nodes whose metrics are missing here", len(failures))


def _read(url: str) -> list[Metric] | Exception:
    """Our metrics on one page, or why they cannot be read."""
    try:
        with _nodes.open(url, timeout=_READ_SECONDS) as page:
            families = text_string_to_metric_families(page.read().decode())
            return [family for family in families if family.name.startswith(_OURS)]
    except (OSError, HTTPException, ValueError) as error:
        _log.warning("the metrics at %s cannot be read: %r", url, error)
        return error


def _is_exact(sample: Sample) -> bool:
    """Ray makes up the sum of a histogram from its buckets' middles; the counters beside the histograms are exact."""
    return not sample.name.endswith("_sum")


def _without_noise(sample: Sample) -> Sample:
    return sample._replace(labels={name: value for name, value in sample.labels.items() if not name.startswith(_NOISE)})
