"""The pipeline against the eager model, and what it computes how often."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds import KINDS
from PIL import Image
from tokenizers import Tokenizer

import hvpnet_runtime.pipeline
from hvpnet import HVPNeT
from hvpnet.modeling.visual_prefix import normalise
from hvpnet_runtime import (
    BackendError,
    BundleError,
    EntityResult,
    InputError,
    Mention,
    PictureError,
    Pipeline,
    RelationResult,
    TextError,
    Tweet,
)
from hvpnet_runtime.backends import Prefix, TextInputs
from hvpnet_runtime.bundle import PictureSpec
from hvpnet_runtime.preprocessing.encode_text import TextEncoder
from hvpnet_runtime.preprocessing.pictures import load_pixels

# The two kinds of which other tests have bundles too; each other kind takes an export of its own.
EXPORTED_ANYWAY = [kind for kind in KINDS if kind[1:] == ("full", "markers")]
REST = [pytest.param(kind, marks=pytest.mark.heavy) for kind in KINDS if kind not in EXPORTED_ANYWAY]


def picture(seed: int, size: tuple[int, int] = (60, 40)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    return Image.fromarray(pixels)


def tweets(task: str) -> list[Tweet]:
    """Every number of objects, no picture at all, boxes, texts of different lengths."""
    texts = [
        "Jordan was great today",
        "RT @user : heading to Georgia for the game , what a night !",
        "Paris",
        "so proud of Madison http://t.co/abcdef #win",
        "Chelsea and Florence " * 6,
    ]
    made = []
    for row, text in enumerate(texts):
        pair = {"head": (0, 1), "tail": (len(text.split()) // 2, len(text.split()))} if task == "re" else {}
        objects = [picture(10 * row + item) for item in range(row)]
        made.append(
            Tweet(
                words=text.split(),
                image=None if row == 2 else picture(row, (50 + row, 80)),
                objects=objects,
                id=row,
                **pair,
            )
        )
    made[3] = replace(made[3], objects=(), boxes=[(0, 0, 30, 30), (10.0, 20.0, 50.0, 80.0)])
    return made


@torch.no_grad()
def eager(model: HVPNeT, bundle: Path, tweet: Tweet) -> list[int]:
    """One tweet through the eager model, unpadded and alone: tag indices per piece, or one relation."""
    config, spec = model.config, PictureSpec()
    encoder = TextEncoder(
        Tokenizer.from_file(str(bundle / "tokenizer.json")), config.max_length, markers=config.task == "re"
    )
    encoding = (
        encoder.encode_entities(tweet.words)
        if config.task == "ner"
        else encoder.encode_relation(tweet.words, tweet.head, tweet.tail)
    )
    ids = torch.tensor([encoding.input_ids])
    slots = torch.zeros(4, 3, 224, 224)
    crops = [load_pixels(crop, spec) for crop in tweet.objects or ()] + [
        load_pixels(tweet.image, spec, box) for box in tweet.boxes or ()
    ]
    for slot, pixels in enumerate(crops[:3], 1):
        slots[slot] = normalise(torch.from_numpy(pixels[None]))[0]
    if tweet.image is not None:
        slots[0] = normalise(torch.from_numpy(load_pixels(tweet.image, spec)[None]))[0]
    prefix = model.encode_pictures(slots[-config.pictures :])[None] if config.pictures else None
    markers = {}
    if config.task == "re" and config.head == "markers":
        markers = {"head_index": torch.tensor([encoding.head_index]), "tail_index": torch.tensor([encoding.tail_index])}
    mask = torch.ones_like(ids)
    (decision,) = model.decode(model(ids, mask, prefix, **markers), mask)
    if config.task == "re":
        return decision
    return [1 if position is None else decision[position] for position in encoding.first_pieces]


def decisions(result: EntityResult | RelationResult) -> tuple[str, ...]:
    return result.tags if isinstance(result, EntityResult) else (result.relation,)


@pytest.mark.parametrize("kind", EXPORTED_ANYWAY + REST, ids="-".join)
def test_equals_the_eager_model(
    kind: tuple[str, str, str], make_model: Callable[..., HVPNeT], bundle_of: Callable[..., Path]
) -> None:
    model, bundle = make_model(*kind), bundle_of(*kind)
    given = tweets(kind[0])
    with Pipeline.load(bundle, "onnxruntime-cpu") as pipeline:
        together, in_twos = pipeline(given), pipeline(given, batch_size=2)
        for tweet, result, other in zip(given, together, in_twos, strict=True):
            assert decisions(result) == decisions(other)  # padding and neighbours change the last digits of scores only
            decision = eager(model, bundle, tweet)
            assert result.id == tweet.id
            if isinstance(result, RelationResult):
                assert result.relation == model.config.labels[decision[0]]
            else:
                labels = [model.config.labels[index] for index in decision]
                assert list(result.tags) == [label if label[:2] in ("B-", "I-") else "O" for label in labels]


@pytest.fixture(scope="module")
def ner(ner_bundle: Path) -> Pipeline:
    return Pipeline.load(ner_bundle)


def count_pictures(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each run of the vision graph gets."""
    counts: list[int] = []
    encode = pipeline.backend.encode_pictures

    def counted(images: np.ndarray) -> object:
        counts.append(len(images))
        return encode(images)

    monkeypatch.setattr(pipeline.backend, "encode_pictures", counted)
    return counts


def test_a_picture_is_computed_once(ner_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline.load(ner_bundle)
    counts = count_pictures(pipeline, monkeypatch)
    one, two = picture(1), picture(2)
    first = pipeline([Tweet(text="a", image=one, objects=[two, one]), Tweet(text="b", image=two)])
    assert counts == [2]  # twice in one batch: once; blanks: at load
    second = pipeline([Tweet(text="a", image=one, objects=[two, one])])
    assert counts == [2]
    assert decisions(second[0]) == decisions(first[0])
    assert pipeline.cache.hits == 2
    pipeline([Tweet(text="no picture at all")])
    assert counts == [2]
    pipeline.cache.clear()
    assert decisions(pipeline([Tweet(text="a", image=one, objects=[two, one])])[0]) == decisions(first[0])
    assert counts == [2, 2]


def test_without_a_cache_and_with_many_pictures(ner_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline.load(ner_bundle, cache_bytes=0)
    counts = count_pictures(pipeline, monkeypatch)
    given = [Tweet(text="a", image=picture(seed)) for seed in range(20)]
    once = pipeline(given)
    assert counts == [16, 4]  # the activations of the vision graph stay bounded
    assert len(pipeline.cache) == 0
    assert [decisions(result) for result in once] == [decisions(pipeline([tweet])[0]) for tweet in given]


def test_threads_get_the_same_answers(ner: Pipeline) -> None:
    given = tweets("ner")
    expected = [decisions(result) for result in ner(given)]
    with ThreadPoolExecutor(4) as pool:
        for answers in pool.map(ner, [given] * 8):
            assert [decisions(result) for result in answers] == expected


def test_offsets_are_those_of_the_text(ner: Pipeline) -> None:
    text = "  RT @user: Jordan, Georgia & Paris!  "
    result = ner([Tweet(text=text, id={"any": "thing"})])[0]
    assert isinstance(result, EntityResult)
    assert result.id == {"any": "thing"}
    assert result.entities  # the weights are random but spread: something is tagged
    for entity in result.entities:
        assert text[entity.start : entity.end] == entity.text
        assert 0 <= entity.score <= 1
    joined = ner([Tweet(words=["Jordan", "was", "great"])])[0]
    for entity in joined.entities:
        assert "Jordan was great"[entity.start : entity.end] == entity.text


def test_long_texts_are_cut_and_reported_or_windowed(ner: Pipeline, ner_bundle: Path) -> None:
    words = [f"w{index}" for index in range(90)]
    cut = ner([Tweet(words=words)])[0]
    assert len(cut.tags) == 90
    assert 0 < cut.cut_words < 90
    assert set(cut.tags[-cut.cut_words :]) == {"O"}
    windowed = Pipeline.load(ner_bundle, window=True)
    whole = windowed([Tweet(words=words), Tweet(words=["Paris"])])
    assert whole[0].cut_words == 0
    assert set(whole[0].tags[-cut.cut_words :]) != {"O"}
    assert whole[1] == ner([Tweet(words=["Paris"])])[0]


def test_windows_without_number_go_through_the_text_graph_in_parts(
    ner_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run takes memory for all its rows; what they say does not depend on it."""
    pipeline = Pipeline.load(ner_bundle, window=True)
    given = [Tweet(words=[f"w{index}" for index in range(300)], image=picture(1)), Tweet(words=["Paris"])]
    expected = [decisions(result) for result in pipeline(given)]
    rows: list[int] = []
    encode = pipeline.backend.encode_text

    def counted(text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> np.ndarray:
        assert len(text.input_ids) == len(prefixes)
        rows.append(len(prefixes))
        return encode(text, prefixes)

    monkeypatch.setattr(pipeline.backend, "encode_text", counted)
    monkeypatch.setattr(hvpnet_runtime.pipeline, "MAX_TEXTS", 3)
    assert [decisions(result) for result in pipeline(given)] == expected
    assert rows[0] == 1  # the short text, which runs apart
    assert set(rows[1:-1]) == {3}
    assert len(rows) > 3
    assert 1 <= rows[-1] <= 3


def test_windows_keep_a_distant_pair(re_bundle: Path) -> None:
    words = [f"w{index}" for index in range(90)]
    tweet = Tweet(words=words, head=(60, 61), tail=(65, 66))
    with pytest.raises(TextError, match="the option window keeps the pair"):
        Pipeline.load(re_bundle)([tweet])
    result = Pipeline.load(re_bundle, window=True)([tweet])[0]
    assert isinstance(result, RelationResult)
    assert 0 < result.score <= 1
    assert result.cut_words > 0


@pytest.mark.parametrize(
    ("tweet", "error", "message"),
    [
        (Tweet(), InputError, "needs its text or its words"),
        (Tweet(text="a", words=["a"]), InputError, "text or words"),
        (Tweet(text=""), TextError, "empty"),
        (Tweet(text=" \n"), TextError, "empty"),
        (Tweet(words=[]), TextError, "empty"),
        (Tweet(text="\u200b\u200d\ufeff"), TextError, "no visible character"),
        (Tweet(text=7), TextError, "must be a string"),
        (Tweet(words="Jordan"), InputError, "words must be a list, not str"),
        (Tweet(words=["a", 3]), TextError, "list of strings"),
        (Tweet(text="a", boxes=[(0, 0, 1, 1)]), InputError, "boxes need the image"),
        (Tweet(text="a", image=picture(0), boxes=[(0, 0, 9, 9)], objects=[picture(1)]), InputError, "not both"),
        (Tweet(text="a", image=picture(0), boxes=[(0, 0, 900, 9)]), PictureError, "box"),
        (Tweet(text="a", image=b""), PictureError, "<bytes>"),
        (Tweet(text="a", image="absent.jpg"), PictureError, "absent.jpg"),
        (Tweet(text="a", objects=[b"no picture"]), PictureError, "<bytes>"),
    ],
)
def test_bad_tweets_are_one_clear_line(ner: Pipeline, tweet: Tweet, error: type[InputError], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        ner([Tweet(text="fine"), replace(tweet, id="x7")])
    assert str(raised.value).startswith("tweet 1 (id 'x7'): ")
    assert "\n" not in str(raised.value)


def test_truncated_and_huge_pictures(ner: Pipeline, tmp_path: Path) -> None:
    picture(1, (300, 200)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:5000])
    with pytest.raises(PictureError, match=r"cut\.jpg.*truncated"):
        ner([Tweet(text="a", image=tmp_path / "cut.jpg")])
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    with pytest.raises(PictureError, match=r"huge\.png has too many pixels"):
        ner([Tweet(text="a", objects=[tmp_path / "huge.png"])])


def test_unreadable_whole_pictures_can_be_substituted_as_published(ner_bundle: Path, tmp_path: Path) -> None:
    picture(5).save(tmp_path / "inf.png")
    pipeline = Pipeline.load(ner_bundle, on_bad_image="substitute")
    expected = pipeline([Tweet(text="Jordan was great", image=tmp_path / "inf.png")])
    assert pipeline([Tweet(text="Jordan was great", image=tmp_path / "absent.jpg")]) == expected
    with pytest.raises(PictureError, match=r"gone.*inf\.png"):
        pipeline([Tweet(text="a", image=tmp_path / "gone" / "absent.jpg")])
    with pytest.raises(PictureError, match="<bytes>"):
        pipeline([Tweet(text="a", image=b"no picture")])
    with pytest.raises(PictureError, match=r"absent\.png"):  # crops never are
        pipeline([Tweet(text="a", objects=[tmp_path / "absent.png"])])
    Image.new("RGB", (40_000, 8)).save(tmp_path / "thin.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    picture(6).save(tmp_path / "icon.tga")
    (tmp_path / "text.jpg").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("thin.png", "huge.png", "icon.tga", "text.jpg", "pipe.jpg"):
        assert pipeline([Tweet(text="Jordan was great", image=tmp_path / name)]) == expected, name
    with pytest.raises(ValueError, match="error or substitute"):
        Pipeline.load(ner_bundle, on_bad_image="ignore")


@pytest.mark.parametrize("threads", [1, 3, None])
def test_any_number_of_threads_prepares_the_same_pixels(ner_bundle: Path, threads: int | None) -> None:
    with Pipeline.load(ner_bundle, threads=threads) as pipeline:
        for tweet in tweets("ner"):
            crops = [load_pixels(crop, PictureSpec()) for crop in tweet.objects or ()]
            crops += [load_pixels(tweet.image, PictureSpec(), box) for box in tweet.boxes or ()]
            whole = [] if tweet.image is None else [load_pixels(tweet.image, PictureSpec())]
            prepared = [each and each.pixels for each in pipeline.prepare(tweet).pictures]
            assert len(prepared) == 4
            assert (prepared[0] is None) == (tweet.image is None)
            given = [pixels for pixels in prepared if pixels is not None]
            assert all(map(np.array_equal, given, [*whole, *crops[:3]]))
            assert len(given) == len([*whole, *crops[:3]])


def test_of_several_bad_pictures_the_first_is_named(ner: Pipeline) -> None:
    for _ in range(5):
        with pytest.raises(PictureError, match=r"one\.jpg"):
            ner.prepare(Tweet(text="a", image=picture(0), objects=["one.jpg", picture(1), b"two"]))


def test_relations_need_a_pair(re_bundle: Path) -> None:
    pipeline = Pipeline.load(re_bundle)
    with pytest.raises(TextError, match="needs head and tail"):
        pipeline([Tweet(text="Jordan and Georgia")])
    with pytest.raises(TextError, match="outside the text"):
        pipeline([Tweet(text="Jordan and Georgia", head=(0, 6), tail=(11, 19))])


def test_a_pair_in_characters_of_the_text_is_that_of_its_words(re_bundle: Path) -> None:
    pipeline = Pipeline.load(re_bundle)
    text, words = "Deripaska, met with Mueller", ["Deripaska", ",", "met", "with", "Mueller"]
    of_text = pipeline([Tweet(text=text, head=(0, 9), tail=(20, 27), id=1)])[0]
    of_words = pipeline([Tweet(words=words, head=(0, 1), tail=(4, 5))])[0]
    assert isinstance(of_text, RelationResult)
    assert isinstance(of_words, RelationResult)
    assert (of_text.relation, of_text.score) == (of_words.relation, of_words.score)
    assert of_text.head == Mention("Deripaska", 0, 9)
    assert of_text.tail == Mention("Mueller", 20, 27)
    assert of_words.tail == Mention("Mueller", 21, 28)  # of the words joined by spaces
    assert of_text.to_dict() == {
        "id": 1,
        "relation": of_text.relation,
        "score": of_text.score,
        "head": {"text": "Deripaska", "start": 0, "end": 9},
        "tail": {"text": "Mueller", "start": 20, "end": 27},
        "cut_words": 0,
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Tweet(text="a"), "not Tweet"),
        ("Jordan", "not str"),
        ({"text": "a"}, "not dict"),
        (7, "not int"),
        (None, "not NoneType"),
        ([{"text": "a"}], r"tweet 0: a tweet must be a Tweet, not dict: make one with Tweet\(\*\*values\)"),
        (["Jordan"], "tweet 0: a tweet must be a Tweet, not str"),
        ([Tweet()], "needs its text or its words"),
        ([Tweet(text="a", words=["a"])], "text or words, not both"),
        ([Tweet(words="Jordan")], "words must be a list, not str"),
        ([Tweet(text="a", objects="crop.png")], "objects must be a list, not str: put a single one into a list"),
        ([Tweet(text="a", objects=b"\x89PNG")], "objects must be a list, not bytes"),
        ([Tweet(text="a", objects=Path("crop.png"))], "objects must be a list"),
        ([Tweet(text="a", objects=np.zeros((4, 4, 3), np.uint8))], "objects must be a list, not ndarray"),
        ([Tweet(text="a", objects=np.array(5))], "objects must be a list, not ndarray"),
        ([Tweet(text="a", objects={"a": 1})], "objects must be a list, not dict: put its values into a list"),
        ([Tweet(words={"a", "b"})], "words must be a list, not set: put its items into a list, whose order counts"),
        ([Tweet(text="a", boxes=7)], "boxes must be a list, not int"),
        ([Tweet(text="a", image=picture(0), boxes=["0123"])], "box '0123' is not four finite numbers"),
        ([Tweet(text="a", image=picture(0), boxes=[b"\0\0\t\t"])], "is not four finite numbers"),
        ([Tweet(text="a", image=picture(0), boxes=[["0", "1", "2", "3"]])], "is not four finite numbers"),
        ([Tweet(text="a", image=picture(0), boxes=[{0: 1, 1: 2, 5: 3, 6: 4}])], "is not four finite numbers"),
        ([Tweet(text="a", image=picture(0), boxes=(0, 0, 10, 10))], "box 0 is not four finite numbers"),
        ([Tweet(text="a", image="A" * 75_000)], "picture AAAA"),
    ],
)
def test_what_is_no_list_of_tweets_is_one_typed_line(ner: Pipeline, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        ner(given)
    assert len(str(raised.value)) < 500
    assert "\n" not in str(raised.value)
    if not isinstance(given, list):
        with pytest.raises(InputError, match=message):
            ner.stream(given)


def test_plain_meanings_are_accepted(ner: Pipeline) -> None:
    whole, boxes = picture(1, (60, 50)), [(0, 0, 20, 20), (5, 5, 40, 40)]
    expected = ner([Tweet(words=["Jordan", "was"], image=whole, boxes=boxes)])
    assert ner(Tweet(words=("Jordan", "was"), image=whole, boxes=np.array(boxes)) for _ in range(1)) == expected
    crops = [np.asarray(whole.crop(box)) for box in boxes]
    assert ner([Tweet(words=np.array(["Jordan", "was"]), image=whole, objects=tuple(crops))]) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        {"window": "yes"}, {"window": 1}, {"on_bad_image": "skip"},
        *({"threads": value} for value in (0, -1, 1.5, "a", True)),
        *({"cache_bytes": value} for value in (-1, 0.5, "x", None)),
    ],
)  # fmt: skip
def test_options_of_another_type_are_refused(ner_bundle: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        Pipeline.load(ner_bundle, **arguments)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "8", True])
def test_a_batch_has_at_least_one_tweet(ner: Pipeline, batch_size: Any) -> None:
    for given in ([], [Tweet(text="a")], [Tweet(text="a"), Tweet(text="b")]):
        with pytest.raises(InputError, match="batch_size must be a whole number, at least 1"):
            ner(given, batch_size)


def test_any_whole_number_is_a_batch_size(ner: Pipeline) -> None:
    assert ner([Tweet(text="a")] * 3, np.int64(2)) == ner([Tweet(text="a")] * 3)


@pytest.mark.parametrize("path", [None, 5, b"bundle"])
def test_what_is_no_path_is_no_bundle(path: Any) -> None:
    with pytest.raises(BundleError, match="a bundle is the path of a folder"):
        Pipeline.load(path)


def test_run_takes_what_was_prepared(ner: Pipeline) -> None:
    for given in ([Tweet(text="a")], ner.prepare(Tweet(text="a")), "a", None):
        with pytest.raises(InputError, match="run takes a list of what prepare returned"):
            ner.run(given)  # type: ignore[arg-type]


def test_no_tweets_no_results(ner: Pipeline) -> None:
    assert ner([]) == []


def test_nan_from_an_engine_is_an_error(ner_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline.load(ner_bundle)
    monkeypatch.setattr(pipeline.backend, "encode_text", lambda text, _: np.full((*text.input_ids.shape, 13), np.nan))
    with pytest.raises(BackendError, match="NaN"):
        pipeline([Tweet(text="a")])


def test_runs_where_torch_transformers_and_onnx_cannot_be_imported(
    ner_bundle: Path, re_bundle: Path, tmp_path: Path
) -> None:
    picture(1).save(tmp_path / "a.jpg")
    script = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "transformers", "onnx", "onnxscript"):
            raise ImportError(name + " must not be imported")
sys.meta_path.insert(0, Refuse())
from hvpnet_runtime import Pipeline, Tweet
ner = Pipeline.load({str(ner_bundle)!r})([Tweet(text="Jordan was great", image={str(tmp_path / "a.jpg")!r})])
print(ner[0].tags)
re = Pipeline.load({str(re_bundle)!r})([Tweet(text="Jordan and Georgia", head=(0, 6), tail=(11, 18))])
print(re[0].relation)
from hvpnet.cli import main
assert main(["predict", {str(ner_bundle)!r}, "--text", "Jordan was great", "--json"]) == 0
assert main(["inspect", {str(ner_bundle)!r}]) == 0
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Pipeline.load(ner_bundle) as pipeline:
        tags = pipeline([Tweet(text="Jordan was great", image=tmp_path / "a.jpg")])[0].tags
    assert done.stdout.splitlines()[0] == str(tags)
