"""One page of metrics out of those of several nodes."""

import math
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hvpnet_runtime.serving.errors import UnavailableError
from hvpnet_runtime.serving.on_ray.metrics import NodeMetrics

NODE = """# HELP ray_hvpnet_tweets_total Tweets answered
# TYPE ray_hvpnet_tweets_total counter
ray_hvpnet_tweets_total{{SessionName="s",Version="v",WorkerId="{worker}",bundle="ner",otel_scope_name="o"}} {tweets}
# HELP ray_hvpnet_stage_seconds Seconds
# TYPE ray_hvpnet_stage_seconds histogram
ray_hvpnet_stage_seconds_bucket{{WorkerId="{worker}",le="1.0"}} 1.0
ray_hvpnet_stage_seconds_bucket{{WorkerId="{worker}",le="+Inf"}} 2.0
ray_hvpnet_stage_seconds_count{{WorkerId="{worker}"}} 2.0
ray_hvpnet_stage_seconds_sum{{WorkerId="{worker}"}} 99.0
# HELP ray_other Other
# TYPE ray_other gauge
ray_other 1.0
"""


def collect(urls):
    return generate_latest(NodeMetrics(urls))


def test_pages_become_one(tmp_path):
    pages = []
    for worker, tweets in (("a", 3), ("b", 4)):
        page = tmp_path / worker
        page.write_text(NODE.format(worker=worker, tweets=tweets), "utf-8")
        pages.append(page.as_uri())
    families = {family.name: family for family in text_string_to_metric_families(collect(pages).decode())}
    assert families.keys() == {"ray_hvpnet_tweets", "ray_hvpnet_stage_seconds", "ray_hvpnet_nodes_unread"}
    assert [sample.value for sample in families["ray_hvpnet_nodes_unread"].samples] == [0]
    tweets = {(*sample.labels.items(),): sample.value for sample in families["ray_hvpnet_tweets"].samples}
    assert tweets == {(("WorkerId", worker), ("bundle", "ner")): count for worker, count in (("a", 3), ("b", 4))}
    seconds = families["ray_hvpnet_stage_seconds"]
    buckets = {
        sample.labels["le"]: sample.value
        for sample in seconds.samples
        if sample.labels["WorkerId"] == "b" and "le" in sample.labels
    }
    assert {float(bound): count for bound, count in buckets.items()} == {1: 1, math.inf: 2}
    assert not any(sample.name.endswith("_sum") for sample in seconds.samples)  # Ray's are guesses


def test_nodes_are_not_asked_through_a_proxy(monkeypatch):
    """Where the machine has one for the internet."""
    page = NODE.format(worker="a", tweets=3).encode()

    class Node(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Node) as node, ThreadPoolExecutor() as server:
        server.submit(node.handle_request)
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert b"ray_hvpnet_nodes_unread 0.0" in collect([f"http://127.0.0.1:{node.server_port}/metrics"])


def test_pages_that_cannot_be_read(tmp_path):
    page, binary, nonsense = (tmp_path / name for name in ("page", "binary", "nonsense"))
    page.write_text(NODE.format(worker="a", tweets=3), "utf-8")
    binary.write_bytes(b"\xff")
    nonsense.write_text("ray_hvpnet_tweets_total{ x\n", "utf-8")
    unread = [path.as_uri() for path in (tmp_path / "nowhere", binary, nonsense)]
    families = {
        family.name: family for family in text_string_to_metric_families(collect([*unread, page.as_uri()]).decode())
    }
    assert [sample.value for sample in families["ray_hvpnet_nodes_unread"].samples] == [3]
    assert [sample.value for sample in families["ray_hvpnet_tweets"].samples] == [3]
    with pytest.raises(UnavailableError, match="nowhere"):
        collect(unread)
    with pytest.raises(UnavailableError, match="there is no node"):
        collect([])
