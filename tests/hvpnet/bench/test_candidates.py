"""What is tried, in which order."""

from hvpnet.bench.candidates import BASELINE, Candidate, find_candidates


def test_pytorch_comes_first_then_every_backend_at_every_precision() -> None:
    found = find_candidates(("fp32", "fp16"), "bf16", ["a", "b"])
    assert found == [
        BASELINE,
        Candidate("eager", "bf16"),
        Candidate("torch.compile", "fp32"),
        *(Candidate(backend, precision) for backend in "ab" for precision in ("fp32", "fp16")),
    ]
    assert [each.is_pytorch for each in found] == [True] * 3 + [False] * 4


def test_openvino_also_computes_in_bf16() -> None:
    found = find_candidates(("fp32",), "bf16", ["openvino"])
    assert found[3:] == [Candidate("openvino", "fp32"), Candidate("openvino", "bf16")]
