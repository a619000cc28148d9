"""A grounder whose answers can be worked out by eye: a query is a colour, and its box holds every pixel of it.

The score of a query is the share of the picture's square that has its colour. Queries made of the text are encoded as
the sum of their words' colours: "red", "green" and "blue", where every other word is black.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rewrite import rewrite
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
SIDE = 32
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def vectors(words: Sequence[str]) -> np.ndarray:
    """float32 [words, 3]."""
    return np.array([COLOURS[word] for word in words], np.float32) / 255


def grounder_graph() -> bytes:
    """images uint8 [pictures, S, S, 3], queries float32 [pictures, queries, 3] -> boxes, scores."""
    side = np.arange(SIDE, dtype=np.float32)
    constants = {
        "most": np.array(255, np.float32),
        "near": np.array(0.1, np.float32),
        "one": np.array(1, np.float32),
        "far": np.array(SIDE, np.float32),
        "none": np.array(0, np.float32),
        "at": side,
        "end": side + 1,
        "picture_axis": np.array([1], np.int64),
        "query_axes": np.array([2, 3], np.int64),
        "last": np.array([-1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["images"], ["wide"], to=TensorProto.FLOAT),
        node("Div", ["wide", "most"], ["shares"]),
        node("Unsqueeze", ["shares", "picture_axis"], ["pixels"]),  # [N, 1, S, S, 3]
        node("Unsqueeze", ["queries", "query_axes"], ["colours"]),  # [N, Q, 1, 1, 3]
        node("Sub", ["pixels", "colours"], ["signed"]),
        node("Abs", ["signed"], ["apart"]),
        node("ReduceMax", ["apart"], ["furthest"], axes=[4], keepdims=0),  # [N, Q, S, S]
        node("Less", ["furthest", "near"], ["same"]),
        node("Cast", ["same"], ["mask"], to=TensorProto.FLOAT),
        node("ReduceMean", ["mask"], ["scores"], axes=[2, 3], keepdims=0),
    ]
    for name, axis in (("x", 2), ("y", 3)):  # columns have one somewhere, then rows
        nodes += [
            node("ReduceMax", ["mask"], [f"{name}_any"], axes=[axis], keepdims=0),  # [N, Q, S]
            node("Less", ["none", f"{name}_any"], [f"{name}_is"]),
            node("Where", [f"{name}_is", "at", "far"], [f"{name}_starts"]),
            node("Where", [f"{name}_is", "end", "none"], [f"{name}_ends"]),
            node("ReduceMin", [f"{name}_starts"], [f"{name}0"], axes=[2], keepdims=1),
            node("ReduceMax", [f"{name}_ends"], [f"{name}1"], axes=[2], keepdims=1),
        ]
    nodes += [
        node("Concat", ["x0", "y0", "x1", "y1"], ["edges"], axis=2),
        node("Div", ["edges", "far"], ["boxes"]),
    ]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["pictures", SIDE, SIDE, 3]),
        helper.make_tensor_value_info("queries", TensorProto.FLOAT, ["pictures", "queries", 3]),
    ]
    outputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["pictures", "queries", 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["pictures", "queries"]),
    ]
    return _model(nodes, inputs, outputs, constants)


def queries_graph() -> bytes:
    """input_ids, attention_mask int64 [queries, length] -> queries float32 [queries, 3]."""
    colours = np.concatenate([np.zeros((len(SPECIALS), 3), np.float32), vectors(list(COLOURS))])
    nodes = [
        helper.make_node("Gather", ["colours", "input_ids"], ["pieces"]),  # [Q, L, 3]
        helper.make_node("Cast", ["attention_mask"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["wide", "last"], ["weights"]),
        helper.make_node("Mul", ["pieces", "weights"], ["read"]),
        helper.make_node("ReduceMax", ["read"], ["queries"], axes=[1], keepdims=0),
    ]
    pieces = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["queries", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    made = [helper.make_tensor_value_info("queries", TensorProto.FLOAT, ["queries", 3])]
    return _model(nodes, pieces, made, {"colours": colours, "last": np.array([-1], np.int64)})


def query_tokenizer() -> str:
    """A tokeniser as JSON; every word but a colour is unknown to it."""
    vocabulary = {piece: number for number, piece in enumerate((*SPECIALS, *COLOURS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer.to_str()


def add_grounder(
    bundle: Path,
    queries: str = "fixed",
    words: Sequence[str] = ("red", "green", "blue"),
    threshold: float = 0.001,
    precision: Sequence[str] = ("fp32",),
) -> Path:
    """Give a bundle a grounder, in place."""
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    manifest["grounder"] = {
        "kind": "one-stage",
        "size": SIDE,
        "query_size": 3,
        "max_length": 8,
        "queries": queries,
        "words": list(words) if queries == "fixed" else [],
        "threshold": threshold,
        "precision": list(precision),
        "parity": {},
    }
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    for name in precision:
        (bundle / "onnx" / name).mkdir(exist_ok=True)
        rewrite(bundle, f"onnx/{name}/grounder.onnx", grounder_graph())
        if queries == "text":
            rewrite(bundle, f"onnx/{name}/queries.onnx", queries_graph())
    if queries == "text":
        rewrite(bundle, "grounder_tokenizer.json", query_tokenizer().encode())
    else:
        np.savez(bundle / "grounder.npz", queries=vectors(words))
        rewrite(bundle, "grounder.npz", (bundle / "grounder.npz").read_bytes())
    return bundle


def _model(nodes: list, inputs: list, outputs: list, constants: dict[str, np.ndarray]) -> bytes:
    used = {name for each in nodes for name in each.input}
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
