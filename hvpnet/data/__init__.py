"""Data sets: readers of the published layouts, and the generated picture-tweets and scattered."""

from hvpnet.data.examples import NER_LABELS, EntityExample, Example, RelationExample, Split
from hvpnet.data.published import SplitFiles, find_split, load_split, read_split
from hvpnet.data.synthetic.picture_tweets import Sizes, write_picture_tweets, write_tokenizer
from hvpnet.data.synthetic.scattered import write_scattered

__all__ = [
    "NER_LABELS",
    "EntityExample",
    "Example",
    "RelationExample",
    "Sizes",
    "Split",
    "SplitFiles",
    "find_split",
    "load_split",
    "read_split",
    "write_picture_tweets",
    "write_scattered",
    "write_tokenizer",
]
