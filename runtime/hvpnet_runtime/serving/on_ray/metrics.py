"""What the many processes of Ray measure, and how it becomes one page.

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
from hvpnet_runtime.serving.metrics import Record

_OURS = "ray_hvpnet_"
_NOISE = ("otel_scope_", "SessionName", "Version", "Component")  # the same in every series
_READ_SECONDS = 5
_READERS = 16

_log = logging.getLogger(__name__)
_nodes = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # reached directly, whatever http_proxy says


class RayInstruments:
    """Instruments whose values Ray collects. It adds the deployment and the replica, and `ray_` before the names."""

    def counter(self, name: str, says: str, labels: Sequence[str]) -> Record:
        """See `Instruments`."""
        made = Counter(name, says, tuple(labels))
        return lambda value, tags: made.inc(value, dict(tags))

    def histogram(self, name: str, says: str, bounds: Sequence[float], labels: Sequence[str]) -> Record:
        """See `Instruments`."""
        made = Histogram(name, says, list(bounds), tuple(labels))
        return lambda value, tags: made.observe(value, dict(tags))


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
