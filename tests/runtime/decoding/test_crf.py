"""The C++ CRF decoder against brute force and against pytorch-crf."""

import importlib.util
import itertools
import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from places import SHARED
from torchcrf import CRF

from hvpnet_runtime.decoding.crf import CrfDecoder

GOLDEN = SHARED / "golden"
FEW_VALUES = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread():
    """The reference's tensors are far too small to share out: waiting for a second thread costs more than it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def reference(start, end, transitions):
    crf = CRF(len(start), batch_first=True)
    crf.load_state_dict(
        {
            "start_transitions": torch.from_numpy(start),
            "end_transitions": torch.from_numpy(end),
            "transitions": torch.from_numpy(transitions),
        }
    )
    return crf


@torch.inference_mode()
def reference_decode(parameters, emissions, mask):
    return reference(*parameters).decode(torch.from_numpy(emissions), torch.from_numpy(mask))


def path_score(parameters, emissions, tags):
    """The CRF's score of a tag sequence in float64, straight from the definition."""
    start, end, transitions = (array.astype(np.float64) for array in parameters)
    inside = sum(transitions[a, b] for a, b in itertools.pairwise(tags))
    return start[tags[0]] + end[tags[-1]] + inside + sum(float(emissions[t, tag]) for t, tag in enumerate(tags))


def prefix_mask(lengths, width):
    return np.arange(width) < np.asarray(lengths)[:, None]  # [batch, width]


@st.composite
def crf_cases(draw, values, max_labels=4, max_length=5):
    """Parameters, emissions [batch, length, labels] and lengths, of few distinct scores so that ties abound."""
    labels = draw(st.integers(1, max_labels))
    batch, width = draw(st.integers(1, 3)), draw(st.integers(1, max_length))
    elements = st.sampled_from(values)

    def array(*shape):
        return draw(hnp.arrays(np.float32, shape, elements=elements))

    parameters = (array(labels), array(labels), array(labels, labels))
    lengths = draw(st.lists(st.integers(1, width), min_size=batch, max_size=batch))
    return parameters, array(batch, width, labels), lengths


@pytest.fixture
def decoder():
    rng = np.random.default_rng(0)
    return CrfDecoder(*(rng.normal(size=shape).astype(np.float32) for shape in [(3,), (3,), (3, 3)]))


@pytest.fixture
def emissions():
    return np.random.default_rng(1).normal(size=(2, 4, 3)).astype(np.float32)


# Viterbi


def test_decodes_a_case_worked_by_hand():
    # Label 1 wins at every position by itself, but 1 -> 1 costs 10, and ending in 0 pays 3.
    decoder = CrfDecoder(np.float32([0, 0]), np.float32([3, 0]), np.float32([[0, 0], [0, -10]]))
    emissions = np.float32([[[0, 1], [0, 2], [0, 1]]])
    assert decoder.labels == 2
    assert decoder.decode(emissions, np.ones((1, 3), bool)) == [[0, 1, 0]]


@given(crf_cases(FEW_VALUES))
def test_decode_is_optimal_and_breaks_ties_as_torchcrf(case):
    parameters, emissions, lengths = case
    mask = prefix_mask(lengths, emissions.shape[1])
    decoded = CrfDecoder(*parameters).decode(emissions, mask)
    assert decoded == reference_decode(parameters, emissions, mask)
    for row, length in enumerate(lengths):
        paths = itertools.product(range(len(parameters[0])), repeat=length)
        # All scores are multiples of 0.5, so both sums are exact and optimality is equality.
        assert path_score(parameters, emissions[row], decoded[row]) == max(
            path_score(parameters, emissions[row], path) for path in paths
        )


@given(crf_cases([-np.inf, np.inf, np.finfo(np.float32).max, np.finfo(np.float32).min, 0.0, 1.0]))
def test_decode_equals_torchcrf_on_infinities_and_overflow(case):
    parameters, emissions, lengths = case
    mask = prefix_mask(lengths, emissions.shape[1])
    assert CrfDecoder(*parameters).decode(emissions, mask) == reference_decode(parameters, emissions, mask)


def test_decode_equals_torchcrf_on_ten_thousand_random_sequences():
    rng = np.random.default_rng(20)
    batch, repetitions = 50, 200
    for repetition in range(repetitions):
        labels, width = int(rng.integers(2, 33)), round(2 ** rng.uniform(0, 7))
        shapes = [(labels,), (labels,), (labels, labels), (batch, width, labels)]
        arrays = [rng.normal(size=shape) for shape in shapes]
        if repetition % 2:  # few distinct values: ties abound
            arrays = [np.round(array) for array in arrays]
        *parameters, emissions = (array.astype(np.float32) for array in arrays)
        mask = prefix_mask(rng.integers(1, width + 1, size=batch), width)
        assert CrfDecoder(*parameters).decode(emissions, mask) == reference_decode(parameters, emissions, mask)


@pytest.mark.parametrize("score", [np.inf, -np.inf, np.finfo(np.float32).max, 3e35, 1e30])
def test_neighbours_of_a_row_with_extreme_scores_decode_as_torchcrf(score):
    rng = np.random.default_rng(21)
    parameters = [np.round(rng.normal(size=shape)).astype(np.float32) for shape in [(13,), (13,), (13, 13)]]
    lengths = [9, 1, 40, 17, 40]
    mask = prefix_mask(lengths, 40)
    for row, length in enumerate(lengths):
        emissions = np.round(rng.normal(size=(5, 40, 13))).astype(np.float32)
        emissions[row, length // 2] = score
        emissions[row, length - 1, 3] = -score
        assert CrfDecoder(*parameters).decode(emissions, mask) == reference_decode(parameters, emissions, mask)


def test_all_scores_equal_decodes_to_the_lowest_tag():
    zeros = np.zeros(40, np.float32)
    decoded = CrfDecoder(zeros, zeros, np.zeros((40, 40), np.float32)).decode(
        np.zeros((1, 6, 40), np.float32), np.ones((1, 6), bool)
    )
    assert decoded == [[0] * 6]


def test_more_labels_than_a_byte_can_name():
    rng = np.random.default_rng(3)
    parameters = [rng.normal(size=shape).astype(np.float32) for shape in [(300,), (300,), (300, 300)]]
    emissions, mask = rng.normal(size=(2, 9, 300)).astype(np.float32), np.ones((2, 9), bool)
    assert CrfDecoder(*parameters).decode(emissions, mask) == reference_decode(parameters, emissions, mask)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int32, np.int64])
def test_mask_types_are_equivalent(decoder, emissions, dtype):
    mask = prefix_mask([2, 4], 4)
    assert decoder.decode(emissions, mask.astype(dtype)) == decoder.decode(emissions, mask)


def test_strided_unaligned_and_read_only_arrays_decode_alike(decoder, emissions):
    mask = prefix_mask([3, 4], 4)
    expected = decoder.decode(emissions, mask)
    strided = np.repeat(emissions, 2, axis=1)[:, ::2]
    buffer = np.empty(emissions.nbytes + 1, np.uint8)
    unaligned = buffer[1:].view(np.float32).reshape(emissions.shape)
    unaligned[:] = emissions
    read_only = emissions.copy()
    read_only.flags.writeable = False
    assert not unaligned.flags.aligned
    for variant in (strided, np.asfortranarray(emissions), unaligned, read_only):
        assert decoder.decode(variant, np.asfortranarray(mask)) == expected


def test_padding_is_never_read(decoder, emissions):
    mask = prefix_mask([2, 4], 4)
    expected = decoder.decode(emissions, mask)
    emissions[0, 2:] = np.nan
    assert decoder.decode(emissions, mask) == expected


def test_an_empty_batch_decodes_to_nothing(decoder):
    assert decoder.decode(np.empty((0, 4, 3), np.float32), np.empty((0, 4), bool)) == []


@pytest.mark.golden
def test_decode_equals_the_published_code_on_its_own_emissions():
    specification = importlib.util.spec_from_file_location("golden_weights", GOLDEN / "weights.py")
    weights = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(weights)
    meta, case = json.loads((GOLDEN / "ner.json").read_text()), np.load(GOLDEN / "ner.npz")
    names = ("start_transitions", "end_transitions", "transitions")
    shapes = {f"crf.{name}": meta["state_dict"][f"crf.{name}"] for name in names}
    decoder = CrfDecoder(*weights.state_dict(shapes, meta["seed"]).values())
    decoded = decoder.decode(case["emissions"], case["attention_mask"])
    lengths = case["attention_mask"].sum(axis=1)
    assert decoded == [list(tags[:length]) for tags, length in zip(case["tags"], lengths, strict=True)]


# Span probabilities


@given(crf_cases([-np.inf, *FEW_VALUES]), st.data())
def test_span_probabilities_equal_enumeration(case, data):
    parameters, emissions, lengths = case
    emissions, length = emissions[0, : lengths[0]], lengths[0]
    paths = list(itertools.product(range(len(parameters[0])), repeat=length))
    weights = np.exp([path_score(parameters, emissions, path) for path in paths])
    assume(weights.sum() > 0)
    tags = data.draw(st.sampled_from(paths))
    spans = [(first, last) for first in range(length) for last in range(first, length)]
    agree = [
        sum(weight for path, weight in zip(paths, weights, strict=True) if path[a : b + 1] == tags[a : b + 1])
        for a, b in spans
    ]
    probabilities = CrfDecoder(*parameters).span_probabilities(emissions, tags, spans)
    np.testing.assert_allclose(probabilities, np.array(agree) / weights.sum(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("position", [0, 63, 127])
def test_probabilities_of_all_tags_at_a_position_sum_to_one(position):
    rng = np.random.default_rng(4)
    parameters = [rng.normal(size=shape).astype(np.float32) for shape in [(13,), (13,), (13, 13)]]
    emissions = (10 * rng.normal(size=(128, 13))).astype(np.float32)
    decoder = CrfDecoder(*parameters)
    total = sum(decoder.span_probabilities(emissions, [tag] * 128, [(position, position)])[0] for tag in range(13))
    assert total == pytest.approx(1, abs=1e-9)


def test_the_whole_sequence_has_the_likelihood_of_torchcrf():
    rng = np.random.default_rng(5)
    parameters = [rng.normal(size=shape).astype(np.float32) for shape in [(5,), (5,), (5, 5)]]
    emissions, tags = rng.normal(size=(12, 5)).astype(np.float32), rng.integers(0, 5, size=12)
    with torch.inference_mode():
        crf = reference(*parameters).double()
        batch = (torch.from_numpy(emissions[None]).double(), torch.from_numpy(tags[None]))
        log_likelihood = crf(*batch, mask=torch.ones(1, 12, dtype=torch.bool)).item()
    [probability] = CrfDecoder(*parameters).span_probabilities(emissions, tags, [(0, 11)])
    assert np.log(probability) == pytest.approx(log_likelihood, abs=1e-9)


def test_probabilities_stay_finite_on_large_scores(decoder):
    emissions = np.float32([[1e4, 0, 0], [0, 1e4, 0], [0, 0, 1e4]])
    assert decoder.span_probabilities(emissions, [0, 1, 1], [(0, 1), (2, 2)]) == [1.0, 0.0]


def test_no_spans_no_probabilities(decoder, emissions):
    assert decoder.span_probabilities(emissions[0], [0, 1, 2, 0], []) == []


# Errors

VECTOR, MATRIX = np.zeros(3, np.float32), np.zeros((3, 3), np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((VECTOR.astype(np.float64), VECTOR, MATRIX), "start_transitions must be float32, not float64"),
        ((VECTOR, VECTOR.astype(">f4"), MATRIX), "end_transitions must be float32"),
        ((VECTOR, VECTOR, np.array([["a"]])), "transitions must be float32"),
        ((VECTOR, VECTOR, VECTOR), "transitions must have 2 dimensions"),
        ((np.float32(1), VECTOR, MATRIX), "start_transitions must have 1 dimensions"),
        ((VECTOR, VECTOR[:2], MATRIX), "length of end_transitions is 2, expected 3"),
        ((VECTOR, VECTOR, MATRIX[:2]), "rows of transitions is 2, expected 3"),
        ((VECTOR, VECTOR, MATRIX[:, :2]), "columns of transitions is 2, expected 3"),
        ((VECTOR[:0], VECTOR[:0], MATRIX[:0, :0]), "start_transitions is empty"),
        ((VECTOR * np.nan, VECTOR, MATRIX), "start_transitions contains NaN"),
        ((VECTOR, VECTOR * np.nan, MATRIX), "end_transitions contains NaN"),
        ((VECTOR, VECTOR, MATRIX * np.nan), "transitions contains NaN"),
    ],
)
def test_unusable_parameters_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        CrfDecoder(*arrays)


FULL = np.ones((2, 4), bool)
SCORES = np.zeros((2, 4, 3), np.float32)


@pytest.mark.parametrize(
    ("scores", "mask", "message"),
    [
        (SCORES.astype(np.float64), FULL, "emissions must be float32, not float64"),
        (SCORES.astype(np.float16), FULL, "emissions must be float32, not float16"),
        (SCORES[0], FULL, "emissions must have 3 dimensions"),
        (SCORES[:, :, :2], FULL, "labels of emissions is 2, expected 3"),
        ([[[0.0], [0.0, 1.0]]], FULL, "emissions is ragged"),
        (SCORES, FULL[0], "mask must have 2 dimensions"),
        (SCORES, FULL[:1], "batch size of mask is 1, expected 2"),
        (SCORES, FULL[:, :3], "length of mask is 3, expected 4"),
        (SCORES, FULL.astype(np.float32), "mask must be bool or integer, not float32"),
        (SCORES, FULL * 2, "mask must hold 0"),
        (SCORES, FULL * -1, "mask must hold 0"),
        (SCORES, FULL * 256, "mask must hold 0"),
        (SCORES, np.array([[1, 1, 1, 1], [0, 0, 0, 0]]), "mask row 1 is not a prefix mask"),
        (SCORES, np.array([[1, 0, 1, 1], [1, 1, 1, 1]]), "mask row 0 is not a prefix mask"),
        (SCORES, np.array([[0, 1, 1, 1], [1, 1, 1, 1]]), "mask row 0 is not a prefix mask"),
        (SCORES[:, :0], FULL[:, :0], "mask row 0 is not a prefix mask"),
        (SCORES * np.nan, FULL, "emissions row 0 contains NaN"),
    ],
)
def test_unusable_inputs_of_decode_are_refused(decoder, scores, mask, message):
    with pytest.raises(ValueError, match=message) as caught:
        decoder.decode(scores, mask)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scores", "tags", "spans", "message"),
    [
        (SCORES, [0] * 4, [(0, 1)], "emissions must have 2 dimensions"),
        (SCORES[0].astype(np.float64), [0] * 4, [(0, 1)], "emissions must be float32"),
        (SCORES[0, :, :2], [0] * 4, [(0, 1)], "labels of emissions is 2, expected 3"),
        (SCORES[0] * np.nan, [0] * 4, [(0, 1)], "emissions contains NaN"),
        (SCORES[0] + np.inf, [0] * 4, [(0, 1)], r"emissions contains \+inf"),
        (SCORES[0] - np.inf, [0] * 4, [(0, 1)], "every tag sequence has the score -inf"),
        (SCORES[0, :0], np.empty(0, np.int64), [], "emissions is empty"),
        (SCORES[0], [0] * 3, [(0, 1)], "length of tags is 3, expected 4"),
        (SCORES[0], [0, 0, 0, 3], [(0, 1)], r"tag 3 at position 3 is not in 0\.\.2"),
        (SCORES[0], [0, -1, 0, 0], [(0, 1)], r"tag -1 at position 1 is not in 0\.\.2"),
        (SCORES[0], [0, 2**63, 0, 0], [(0, 1)], "tag"),
        (SCORES[0], [0, 2**70, 0, 0], [(0, 1)], "tags must be integers"),
        (SCORES[0], [0.0] * 4, [(0, 1)], "tags must be integers, not float64"),
        (SCORES[0], [[0]] * 4, [(0, 1)], "tags must have 1 dimensions"),
        (SCORES[0], [0] * 4, [(0.5, 1)], "spans must be integers"),
        (SCORES[0], [0] * 4, [0, 1], "spans must have 2 dimensions"),
        (SCORES[0], [0] * 4, [(0, 1), (2,)], "spans is ragged"),
        (SCORES[0], [0] * 4, [(0, 1, 2)], "ends of a span is 3, expected 2"),
        (SCORES[0], [0] * 4, [(0, 4)], r"span \[0, 4\]"),
        (SCORES[0], [0] * 4, [(-1, 1)], r"span \[-1, 1\]"),
        (SCORES[0], [0] * 4, [(0, 1), (2, 1)], r"span \[2, 1\]"),
    ],
)
def test_unusable_inputs_of_span_probabilities_are_refused(decoder, scores, tags, spans, message):
    with pytest.raises(ValueError, match=message) as caught:
        decoder.span_probabilities(scores, tags, spans)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["start_transitions", "end_transitions", "transitions"])
def test_probabilities_need_parameters_below_infinity(name):
    arrays = {"start_transitions": VECTOR, "end_transitions": VECTOR, "transitions": MATRIX}
    decoder = CrfDecoder(**(arrays | {name: arrays[name] + np.inf}))
    with pytest.raises(ValueError, match=rf"^{name} contains \+inf"):
        decoder.span_probabilities(SCORES[0], [0] * 4, [(0, 1)])


# The process around it


def count_while(work):
    """How far another thread counts while `work` runs, if threads switch only where the GIL is released on purpose."""
    counter, finished, counted = [0], threading.Event(), []

    def worker():
        before = counter[0]
        work()
        counted.append(counter[0] - before)
        finished.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        thread = threading.Thread(target=worker)
        thread.start()
        while not finished.is_set():
            counter[0] += 1
            time.sleep(0)
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    return counted[0]


def test_the_gil_is_released_while_computing(decoder):
    emissions, mask = np.zeros((32, 100_000, 3), np.float32), np.ones((32, 100_000), bool)
    crf = decoder._crf
    assert count_while(lambda: crf.decode(emissions, mask.view(np.uint8))) > 10
    tags, spans = np.zeros(100_000, np.int64), np.zeros((1, 2), np.int64)
    assert count_while(lambda: crf.span_probabilities(emissions[0], tags, spans)) > 10
    assert count_while(lambda: sum(range(1_000_000))) == 0  # what holding the GIL looks like


def test_threads_share_one_decoder(decoder, emissions):
    mask, decoded = prefix_mask([3, 4], 4), []
    expected = decoder.decode(emissions, mask)
    threads = [
        threading.Thread(target=lambda: decoded.extend(decoder.decode(emissions, mask) for _ in range(200)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert decoded == [expected] * 800


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_decodes_where_torch_cannot_be_imported():
    result = run_python(
        "import sys\n"
        "sys.modules.update(torch=None, torchcrf=None, transformers=None)\n"
        "import numpy as np\n"
        "from hvpnet_runtime.decoding.crf import CrfDecoder\n"
        "decoder = CrfDecoder(*(np.zeros(s, np.float32) for s in [2, 2, (2, 2)]))\n"
        "scores = np.float32([[[0, 1], [1, 0]]])\n"
        "print(decoder.decode(scores, np.ones((1, 2), bool)))\n"
        "print(decoder.span_probabilities(scores[0] * 0, [1, 0], [(0, 1)]))"
    )
    assert result.stderr == ""
    assert result.stdout == "[[1, 0]]\n[0.25]\n"


@pytest.mark.parametrize("part", ["_crf", "_pixels"])
def test_a_missing_extension_says_how_to_rebuild(part):
    result = run_python(f"import sys\nsys.modules['hvpnet_runtime.{part}'] = None\nimport hvpnet_runtime.decoding.crf")
    message = result.stderr.splitlines()[-1]
    assert result.returncode == 1
    assert message.startswith("ImportError: the installation is broken")
    assert "pip install --force-reinstall hvpnet" in message
    assert "pip install -e ." in message
