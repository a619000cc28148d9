"""Bulk runs through Ray Data, on this machine or a cluster: `annotate(job, OnRay("10.0.0.1:6379"))`."""

from importlib.util import find_spec

from hvpnet_runtime.errors import MissingExtraError

for _package in ("ray", "pandas"):
    if find_spec(_package) is None:
        raise MissingExtraError(_package, "ray", "bulk annotation on Ray")

from hvpnet_runtime.bulk.on_ray.cluster import OnRay  # noqa: E402  the check comes first

__all__ = ["OnRay"]
