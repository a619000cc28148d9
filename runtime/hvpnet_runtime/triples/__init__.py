"""From posts to triples: the entities of a post, and which relation holds between which of them."""

from hvpnet_runtime.triples.pipeline import TriplePipeline

__all__ = ["TriplePipeline"]
