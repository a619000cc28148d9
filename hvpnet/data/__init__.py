"""Data sets: readers of the published layouts and of posts with triples, and generated sets."""

from hvpnet.data.examples import NER_LABELS, EntityExample, Example, RelationExample, Split
from hvpnet.data.posts import PostExample, posts_file, read_posts
from hvpnet.data.published import SplitFiles, find_split, load_split, read_split
from hvpnet.data.synthetic.picture_tweets import Sizes, write_picture_tweets, write_tokenizer
from hvpnet.data.synthetic.post_graphs import write_post_graphs
from hvpnet.data.synthetic.scattered import write_scattered

__all__ = [
    "NER_LABELS",
    "EntityExample",
    "Example",
    "PostExample",
    "RelationExample",
    "Sizes",
    "Split",
    "SplitFiles",
    "find_split",
    "load_split",
    "posts_file",
    "read_posts",
    "read_split",
    "write_picture_tweets",
    "write_post_graphs",
    "write_scattered",
    "write_tokenizer",
]
