"""A bundle's contract: what is in the folder, how it is read and checked, and how it is written."""

from hvpnet_runtime.bundle.files import file_digests, sha256
from hvpnet_runtime.bundle.graph_spec import (
    Axis,
    FoundTensor,
    GraphName,
    GraphSpec,
    TensorSpec,
    graph_specs,
    grounder_specs,
)
from hvpnet_runtime.bundle.grounder_spec import (
    FIXED_QUERIES,
    QUERY_TOKENIZER,
    GrounderKind,
    GrounderSpec,
    QueryKind,
)
from hvpnet_runtime.bundle.manifest import (
    MAX_OBJECTS,
    SCHEMA_VERSION,
    FileDigest,
    Head,
    Limits,
    Manifest,
    PictureSpec,
    Sizes,
    Task,
    Variant,
)
from hvpnet_runtime.bundle.precision import QUANTISED, Precision
from hvpnet_runtime.bundle.reader import Bundle, read_manifest, require_pictures

__all__ = [
    "FIXED_QUERIES",
    "MAX_OBJECTS",
    "QUANTISED",
    "QUERY_TOKENIZER",
    "SCHEMA_VERSION",
    "Axis",
    "Bundle",
    "FileDigest",
    "FoundTensor",
    "GraphName",
    "GraphSpec",
    "GrounderKind",
    "GrounderSpec",
    "Head",
    "Limits",
    "Manifest",
    "PictureSpec",
    "Precision",
    "QueryKind",
    "Sizes",
    "Task",
    "TensorSpec",
    "Variant",
    "file_digests",
    "graph_specs",
    "grounder_specs",
    "read_manifest",
    "require_pictures",
    "sha256",
]
