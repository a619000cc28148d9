"""Annotate corpora: JSON lines or Parquet in, the same out; on this machine, or through Ray Data (`on_ray`).

from hvpnet_runtime.bulk import Job, annotate

annotate(Job("bundle", "tweets.parquet", "entities.parquet"))
"""

from importlib.util import find_spec

from hvpnet_runtime.errors import MissingExtraError

# Before a run begins: some of them it imports only when it has read its input.
for _package in ("pyarrow", "filelock", "tqdm"):
    if find_spec(_package) is None:
        raise MissingExtraError(_package, "bulk", "bulk annotation")

from hvpnet_runtime.bulk.job import Job, Report, TripleJob  # noqa: E402  the check comes first
from hvpnet_runtime.bulk.local import Local  # noqa: E402
from hvpnet_runtime.bulk.run import annotate  # noqa: E402

__all__ = ["Job", "Local", "Report", "TripleJob", "annotate"]
