import json
import os
import sys
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features
from places import SHARED

from hvpnet.data import NER_LABELS, SplitFiles, find_split, load_split, read_split
from hvpnet.data.readers import (
    collect_relations,
    read_entity_text,
    read_object_lists,
    read_relation_dictionary,
    read_relation_text,
)
from hvpnet.errors import DataError
from hvpnet_runtime.bundle import PictureSpec
from hvpnet_runtime.errors import MissingExtraError

RELATION_LINE = (
    "{'token': ['Ann', 'Lee', 'met', 'Bo'], 'h': {'name': 'Ann Lee', 'pos': [0, 2]}, "
    "'t': {'name': 'Bo', 'pos': [3, 4]}, 'img_id': 'a.jpg', 'relation': '/per/per/peer'}\n"
)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def save_picture(path, colour=(200, 30, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), colour).save(path)
    return path


# Text of Twitter-2015 and Twitter-2017


def test_entity_text(tmp_path):
    text = "IMGID:12\nIslam\tB-OTHER\nlaw\tI-OTHER\n\u00a0\tO\n\n\n  \nIMGID:7\nBo\tB-PER"
    rows = read_entity_text(write(tmp_path / "train.txt", text))
    assert [(image, example.tweet.words, example.tags, example.tweet.id) for image, example in rows] == [
        ("12.jpg", ("Islam", "law", "\u00a0"), ("B-MISC", "I-MISC", "O"), 0),
        ("7.jpg", ("Bo",), ("B-PER",), 1),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("IMGID:1\nBo B-PER\n", "train.txt:2: expected a word, a tab and a tag, got 'Bo B-PER'"),
        ("IMGID:1\n\tO\n", "train.txt:2: expected a word"),
        ("IMGID:1\nBo\tB-PER\nLee\tB-DOG\n", "train.txt:3: unknown tag 'B-DOG'"),
        ("IMGID:1\nBo\tB-PER\tO\n", "train.txt:2: unknown tag"),
        ("\nBo\tB-PER\n", "train.txt:2: a word before any IMGID:"),
        ("IMGID:1\nBo\tO\n\nLee\tO\n", "train.txt:4: a word before any IMGID:"),
        ("IMGID:1\n\nIMGID:2\nBo\tO\n", "train.txt:2: the tweet of image '1' has no words"),
        ("IMGID:\nBo\tO\n", "train.txt:1: IMGID: without"),
    ],
)
def test_malformed_entity_text(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_entity_text(write(tmp_path / "train.txt", text))


def test_text_that_is_not_utf8(tmp_path):
    (tmp_path / "train.txt").write_bytes(b"IMGID:1\n\xff\xfe\tO\n")
    with pytest.raises(DataError, match=r"train.txt: cannot be read"):
        read_entity_text(tmp_path / "train.txt")


WORDS = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
    lambda word: not word.startswith("IMGID:")
)
TWEETS = st.lists(st.lists(st.tuples(WORDS, st.sampled_from(NER_LABELS)), min_size=1, max_size=5), max_size=4)


@given(TWEETS)
def test_entity_text_round_trip(tmp_path_factory, tweets):
    blocks = [f"IMGID:{i}\n" + "".join(f"{word}\t{tag}\n" for word, tag in tweet) for i, tweet in enumerate(tweets)]
    rows = read_entity_text(write(tmp_path_factory.mktemp("ner") / "train.txt", "\n".join(blocks)))
    assert [list(zip(example.tweet.words, example.tags, strict=True)) for _, example in rows] == tweets
    assert [image for image, _ in rows] == [f"{i}.jpg" for i in range(len(tweets))]


def test_own_tags_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "test.txt"
    path.write_bytes(b"\xef\xbb\xbfIMGID:1\nnoon\tB-TIME\nlaw\tB-OTHER\nBo\tB-PER\n")
    with pytest.raises(DataError, match=r"test.txt:2: unknown tag 'B-TIME': known are PAD, O, "):
        read_entity_text(path)
    [(image, example)] = read_entity_text(path, ("O", "B-TIME", "I-TIME"))
    assert (image, example.tags) == ("1.jpg", ("B-TIME", "B-MISC", "B-PER"))
    [(_, example)] = read_entity_text(path, ("O", "B-TIME", "B-OTHER"))
    assert example.tags == ("B-TIME", "B-OTHER", "B-PER")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_byte_order_mark_in_relation_files(tmp_path, mark):
    write(tmp_path / "train.txt", mark + RELATION_LINE)
    write(tmp_path / "relations.json", mark + '{"None": 0, "/per/per/peer": 1}')
    write(tmp_path / "x.json", mark + '{"0": ["a.png"]}')
    assert load_split(tmp_path, "train").relations == ("None", "/per/per/peer")
    assert collect_relations(tmp_path / "train.txt") == ("/per/per/peer",)
    assert read_object_lists(tmp_path / "x.json") == {"0": ("a.png",)}
    (tmp_path / "relations.json").unlink()
    assert load_split(tmp_path, "train").task == "re"


# Text of MNRE


def test_relation_text(tmp_path):
    [(image, example)] = read_relation_text(write(tmp_path / "train.txt", RELATION_LINE), ("None", "/per/per/peer"))
    assert image == "a.jpg"
    assert example.relation == "/per/per/peer"
    assert example.tweet.words == ("Ann", "Lee", "met", "Bo")
    assert (example.tweet.head, example.tweet.tail, example.tweet.id) == ((0, 2), (3, 4), 0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{'token'", "{'tokens'", "KeyError: 'token'"),
        ("[3, 4]", "[3, 5]", "outside the 4 words"),
        ("[3, 4]", "[4, 4]", "outside the 4 words"),
        ("[3, 4]", "[-1, 4]", "outside the 4 words"),
        ("[3, 4]", "[3]", "expected a dict"),
        ("[3, 4]", "['a', 'b']", "outside the 4 words"),
        ("'a.jpg'", "7", "img_id and relation are not both text"),
        ("['Ann', 'Lee', 'met', 'Bo']", "'Ann'", "token is not a list of words"),
        (RELATION_LINE, "[1, 2]\n", "expected a dict"),
        (RELATION_LINE, "{'token': [\n", "expected a dict"),
        (RELATION_LINE, "\n" + RELATION_LINE, "expected a dict"),
        (RELATION_LINE, "__import__('os').abort()\n", "expected a dict"),
        (RELATION_LINE, "[" * 60_000 + "\n", "expected a dict"),
        (RELATION_LINE, "-" * 60_000 + "1\n", "expected a dict"),
        (RELATION_LINE, "[" + "[]," * 30_000 + "]\n", "a row of 90002 characters: more than 65536 are not read"),
        ("peer", "rival", "unknown relation '/per/per/rival': known are /per/per/peer"),
    ],
)
def test_malformed_relation_text(tmp_path, old, new, message):
    path = write(tmp_path / "train.txt", RELATION_LINE + RELATION_LINE.replace(old, new))
    with pytest.raises(DataError, match=f"train.txt:2: .*({message})") as caught:
        read_relation_text(path, ("/per/per/peer",))
    assert len(str(caught.value)) < 600


def test_relation_dictionary(tmp_path):
    indices = {"b": 1, "None": 2, "a": 0}
    for indent in (None, 2):  # one line, as published, or several
        path = write(tmp_path / "rel2id.json", json.dumps(indices, indent=indent) + "\n")
        assert read_relation_dictionary(path) == ("a", "b", "None")
    with pytest.raises(DataError, match=r"rel2id.json: is not JSON: Extra data: line 2"):
        read_relation_dictionary(write(path, '{"a": 0}\n{"b": 1}\n'))


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"a": "0"}', '{"a": 1}', '{"a": 0, "b": 0}', '{"a": true}', "[" * 100_000]
)
def test_malformed_relation_dictionary(tmp_path, content):
    with pytest.raises(DataError, match=r"rel2id\.json"):
        read_relation_dictionary(write(tmp_path / "rel2id.json", content))


def test_collected_relations_have_none_last(tmp_path):
    lines = [RELATION_LINE.replace("/per/per/peer", name) for name in ("b", "None", "a", "b", "Zoo")]
    assert collect_relations(write(tmp_path / "train.txt", "".join(lines))) == ("Zoo", "a", "b", "None")


# Lists of objects


def test_object_lists(tmp_path):
    torch.save({0: ["a.png", "b.png"], "7.jpg": ["c.png"]}, tmp_path / "x_dict.pth")
    write(tmp_path / "x.json", '{"0": ["a.png", "b.png"], "7.jpg": ["c.png"]}')
    expected = {"0": ("a.png", "b.png"), "7.jpg": ("c.png",)}
    assert read_object_lists(tmp_path / "x_dict.pth") == read_object_lists(tmp_path / "x.json") == expected


class Payload:
    def __reduce__(self):
        return print, ("this must not run",)


def test_pickled_code_is_refused(tmp_path, capsys):
    torch.save({"7.jpg": Payload()}, tmp_path / "x_dict.pth")
    with pytest.raises(DataError, match=r"x_dict.pth: cannot be read as a plain dictionary") as raised:
        read_object_lists(tmp_path / "x_dict.pth")
    assert "\n" not in str(raised.value)
    assert capsys.readouterr().out == ""


def test_object_lists_that_would_take_more_memory_than_bytes(tmp_path, monkeypatch):
    path = tmp_path / "x_dict.pth"
    torch.save({"1.jpg": ["a" * 10**6]}, path)
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in members.items():
            new.writestr(name, content)
    with pytest.raises(DataError, match="is compressed: save it again without compression"):
        read_object_lists(path)
    monkeypatch.setattr("hvpnet.data.readers.DATA_SET", 1000)
    for name, read in (("x.json", read_object_lists), ("x.txt", read_entity_text)):
        with pytest.raises(DataError, match=f"{name}: .*it has more than 1000 bytes"):
            read(write(tmp_path / name, " " * 1001))


@pytest.mark.parametrize("content", ["", "[]", '{"a": "b"}', '{"a": [1]}', '{"a": null}', '{"a": ' * 100_000])
def test_malformed_object_lists(tmp_path, content):
    with pytest.raises(DataError, match=r"x\.json"):
        read_object_lists(write(tmp_path / "x.json", content))


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 truncated"])
def test_object_lists_of_garbage(tmp_path, content):
    (tmp_path / "x_dict.pth").write_bytes(content)
    with pytest.raises(DataError, match=r"x_dict\.pth"):
        read_object_lists(tmp_path / "x_dict.pth")


def test_pth_lists_need_torch(tmp_path, monkeypatch):
    torch.save({}, tmp_path / "x_dict.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"x_dict.pth needs the package torch: pip install 'hvpnet\[export\]'"):
        read_object_lists(tmp_path / "x_dict.pth")


# Pictures


@pytest.fixture
def twitter(tmp_path):
    """Two tweets: the first with a picture and four crops, the second with a picture alone."""
    text = write(tmp_path / "train.txt", "IMGID:1\nBo\tB-PER\n\nIMGID:2\nhi\tO\n")
    crops = [f"1_pred_yolo_crop_{i}.png" for i in range(4)]
    for name in crops:
        save_picture(tmp_path / "crops" / name)
    for name in ("1.jpg", "2.jpg"):
        save_picture(tmp_path / "images" / name)
    objects = write(tmp_path / "train_objects.json", json.dumps({"1.jpg": crops}))
    return SplitFiles(text, tmp_path / "images", tmp_path / "crops", objects)


def images(split):
    return [example.tweet.image.name for example in split.examples]


def test_pictures_are_attached(twitter):
    split = read_split(twitter)
    assert split.has_pictures
    assert images(split) == ["1.jpg", "2.jpg"]
    assert split.examples[0].tweet.objects == tuple(twitter.crops / f"1_pred_yolo_crop_{i}.png" for i in range(4))
    assert split.examples[1].tweet.objects == ()


@pytest.mark.parametrize("name", ["x" * 60_000, "../" + "x" * 60_000])
def test_long_names_are_not_shown_whole(tmp_path, name):
    write(tmp_path / "train.txt", f"IMGID:{name}\nBo\tO\n")
    (tmp_path / "images").mkdir()
    for on_bad_image in ("error", "substitute"):
        with pytest.raises(DataError, match=r"train\.txt: tweet 0: ") as caught:
            load_split(tmp_path, "train", on_bad_image)
        assert len(str(caught.value)) < 1000
    write(tmp_path / "train.txt", f"IMGID:{name}\n\nIMGID:1\nBo\tO\n")
    with pytest.raises(DataError, match="has no words") as caught:
        load_split(tmp_path, "train")
    assert len(str(caught.value)) < 1000


def test_text_without_pictures(twitter):
    split = read_split(SplitFiles(twitter.text, None, twitter.crops, twitter.objects))
    assert not split.has_pictures
    assert [(example.tweet.image, example.tweet.objects) for example in split.examples] == [(None, None), (None, None)]


def test_missing_image_is_an_error(twitter):
    (twitter.images / "2.jpg").unlink()
    with pytest.raises(DataError, match=r"train.txt: tweet 1: its image '2.jpg' is missing from .*: add it"):
        read_split(twitter)


def break_picture(path, broken):
    """Makes a picture one that the runtime does not take, though Pillow may."""
    content = {"empty": b"", "text": b"no picture", "truncated": path.read_bytes()[:-200]}
    path.unlink()
    if broken in content:
        path.write_bytes(content[broken])
    elif broken == "huge":
        Image.new("1", (8000, 7000)).save(path, "PNG")
    elif broken == "elongated":
        Image.new("RGB", (40_000, 8)).save(path, "PNG")
    elif broken == "pipe":
        os.mkfifo(path)
    elif broken != "missing":
        Image.new("RGB", (64, 48)).save(path, broken)


BROKEN = ["missing", "empty", "text", "truncated", "huge", "elongated", "pipe", "TGA", "ICO", "JPEG2000", "TIFF", "PPM"]


@pytest.mark.parametrize("broken", BROKEN)
def test_substitute(twitter, broken):
    break_picture(twitter.images / "2.jpg", broken)
    with pytest.raises(DataError, match=r"its image '2.jpg' in .* cannot be opened, and neither can inf.png"):
        read_split(twitter, on_bad_image="substitute")
    save_picture(twitter.images / "inf.png")
    assert images(read_split(twitter, on_bad_image="substitute")) == ["1.jpg", "inf.png"]


def test_what_is_substituted_depends_on_the_limits_of_who_reads(twitter):
    save_picture(twitter.images / "inf.png").write_bytes((twitter.images / "1.jpg").read_bytes())
    Image.new("RGB", (65, 48)).save(twitter.images / "2.jpg")
    assert images(read_split(twitter, "substitute")) == ["1.jpg", "2.jpg"]
    small = PictureSpec(resize=16, crop=8, max_pixels=64 * 48)
    assert images(read_split(twitter, "substitute", pictures=small)) == ["1.jpg", "inf.png"]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_not_substituted(twitter):
    Image.new("RGB", (64, 48)).save(twitter.images / "2.jpg", "AVIF")
    assert images(read_split(twitter, "substitute")) == ["1.jpg", "2.jpg"]


OUTSIDE = ["/etc/passwd", "../2.jpg", "sub/../../2.jpg", "..", "", "."]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("on_bad_image", ["error", "substitute"])
def test_names_stay_in_their_folders(tmp_path, name, on_bad_image):
    save_picture(tmp_path / "2.jpg")
    save_picture(tmp_path / "images/inf.png")
    write(tmp_path / "relations.json", '{"None": 0, "/per/per/peer": 1}')
    write(tmp_path / "train.txt", RELATION_LINE.replace("a.jpg", name))
    with pytest.raises(DataError, match=r"tweet 0: the name .* leads out of .*/images: name a file in it"):
        load_split(tmp_path, "train", on_bad_image)
    save_picture(tmp_path / "images/a.jpg")
    save_picture(tmp_path / "crops/c.png")
    write(tmp_path / "train.txt", RELATION_LINE)
    write(tmp_path / "train_objects.json", json.dumps({"0": [name]}))
    with pytest.raises(DataError, match=r"tweet 0: the name .* leads out of .*/crops: name a file in it"):
        load_split(tmp_path, "train", on_bad_image)


@pytest.mark.parametrize("name", ["/etc/passwd", "../1"])
def test_numbers_of_images_stay_in_their_folder(twitter, name):
    write(twitter.text, f"IMGID:{name}\nBo\tO\n")
    with pytest.raises(DataError, match=r"leads out of .*/images"):
        read_split(twitter)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b.jpg"])
def test_impossible_names_cannot_be_opened(twitter, name):
    write(twitter.text, f"IMGID:{name}\nBo\tO\n")
    with pytest.raises(DataError, match=r"cannot be opened \((File name too long|.*null.*)\): replace it"):
        read_split(twitter)


def test_folders_within_are_no_way_out(twitter):
    save_picture(twitter.images / "sub/3.jpg")
    write(twitter.text, "IMGID:sub/3\nBo\tO\n\nIMGID:1\nBo\tO\n")
    assert images(read_split(twitter)) == ["3.jpg", "1.jpg"]


def test_counts(twitter):
    write(twitter.text, "IMGID:1\nBo\tB-PER\n\nIMGID:2\nhi\tO\n\nIMGID:1\nhi\tO\n")
    split = read_split(twitter)
    assert split.counts == {"tweets": 3, "pictures": 2, "crops": 3}  # of four crops a model reads three
    assert split.summary == "3 tweets, 2 pictures, 3 crops"
    assert read_split(twitter, pictures=None).counts == {"tweets": 3, "pictures": 0, "crops": 0}


LISTS = {
    "ours": ("train.txt", "images", "crops", "train_objects.json", "dev_objects.json"),
    "twitter": (
        "train.txt",
        "../twitter_images",
        "../twitter_aux_images/train/crops",
        "twitter_train_dict.pth",
        "twitter_val_dict.pth",
    ),
    "mnre": (
        "txt/ours_train.txt",
        "img_org/train",
        "img_vg/train/crops",
        "txt/mre_train_dict.pth",
        "txt/mre_dev_dict.pth",
    ),
}


@pytest.mark.parametrize("layout", LISTS)
@pytest.mark.parametrize("sign", ["crops", "other lists"])
def test_missing_lists_of_crops_are_an_error(tmp_path, layout, sign, caplog):
    """Where there are crops, or lists for another split, there are lists for this one."""
    text, folder, crops, lists, others = LISTS[layout]
    root = tmp_path / "twitter"
    write(root / text, RELATION_LINE if layout == "mnre" else "IMGID:a\nBo\tB-PER\n")
    write(root / "ours_rel2id.json", '{"/per/per/peer": 0}') if layout == "mnre" else None
    save_picture(root / folder / "a.jpg")
    assert load_split(root, "train").counts == {"tweets": 1, "pictures": 1, "crops": 0}
    assert "is read without crops of objects: 1 tweets, 1 pictures, 0 crops" in caplog.text
    if sign == "crops":
        save_picture(root / crops / "a.png")
    else:
        write(root / others, "{}")
    with pytest.raises(DataError, match=rf"its lists of crops are missing, looked for .*{lists}"):
        load_split(root, "train")
    assert load_split(root, "train", pictures=None).counts["pictures"] == 0
    caplog.clear()
    save_picture(root / crops / "a.png")
    names = {0 if layout == "mnre" else "a.jpg": ["a.png"]}
    torch.save(names, root / lists) if lists.endswith("pth") else write(root / lists, json.dumps(names))
    assert load_split(root, "train").counts["crops"] == 1
    assert not caplog.text


def test_lists_of_other_tweets_are_an_error(twitter, caplog):
    write(twitter.objects, json.dumps({"1": ["1_pred_yolo_crop_0.png"], "3.jpg": []}))
    with pytest.raises(DataError, match=r"train_objects.json: has the crops of 2 pictures, and none of them is in"):
        read_split(twitter)
    write(twitter.objects, "{}")
    assert read_split(twitter).counts["crops"] == 0
    assert "is read without crops" in caplog.text


def test_lists_that_fit_no_tweet_are_told(twitter, caplog):
    lists = json.loads(twitter.objects.read_text())
    read_split(twitter)
    assert not caplog.text
    write(twitter.objects, json.dumps(lists | {"8.jpg": [], "7": []}))
    read_split(twitter)
    listed = len(lists) + 2
    assert f"2 of its {listed} lists of crops fit no tweet of {twitter.text}, for instance that of 7" in caplog.text


def test_what_is_no_file_is_not_called_missing(twitter):
    image = twitter.images / "1.jpg"
    crop = twitter.crops / json.loads(twitter.objects.read_text())["1.jpg"][0]
    for path, rest in ((crop, "or remove it from the object lists"), (image, "or take inf.png with")):
        path.unlink()
        os.mkfifo(path)
        message = rf"'{path.name}' in {path.parent} cannot be opened \(Is a named pipe\): replace it, {rest}"
        with pytest.raises(DataError, match=message):
            read_split(twitter)


@pytest.mark.parametrize("on_bad_image", ["error", "substitute"])
def test_missing_crop_is_always_an_error(twitter, on_bad_image):
    (twitter.crops / "1_pred_yolo_crop_3.png").unlink()
    with pytest.raises(DataError, match=r"tweet 0: its crop '.*crop_3.png' is missing from .*crops: add it"):
        read_split(twitter, on_bad_image)


def test_listed_crops_need_their_folder(twitter):
    with pytest.raises(DataError, match=r"its crop '1_pred_yolo_crop_0.png' is listed, but there is no folder"):
        read_split(SplitFiles(twitter.text, twitter.images, None, twitter.objects))


def test_empty_text_is_an_error(twitter):
    write(twitter.text, "\n\n")
    with pytest.raises(DataError, match=r"train.txt: holds no tweets"):
        read_split(twitter)


def test_relation_crops_go_by_row_number(tmp_path):
    write(tmp_path / "train.txt", RELATION_LINE * 2)
    write(tmp_path / "relations.json", '{"None": 0, "/per/per/peer": 1}')
    write(tmp_path / "train_objects.json", '{"1": ["c.png"], "a.jpg": ["never.png"]}')
    save_picture(tmp_path / "images/a.jpg")
    save_picture(tmp_path / "crops/c.png")
    split = load_split(tmp_path, "train")
    assert split.task == "re"
    assert split.relations == ("None", "/per/per/peer")
    assert [[path.name for path in example.tweet.objects] for example in split.examples] == [[], ["c.png"]]


# Layouts


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_our_layout(tmp_path, split):
    for name in (f"{split}.txt", f"{split}_objects.json", "relations.json", "images/a.jpg", "crops/a.png"):
        write(tmp_path / name, "")
    files = find_split(tmp_path, split)
    assert files == SplitFiles(
        tmp_path / f"{split}.txt",
        tmp_path / "images",
        tmp_path / "crops",
        tmp_path / f"{split}_objects.json",
        tmp_path / "relations.json",
    )
    assert files.task == "re"


@pytest.mark.parametrize(("split", "text", "short"), [("train",) * 3, ("dev", "valid", "val"), ("test",) * 3])
def test_twitter_layout(tmp_path, split, text, short):
    root = tmp_path / "twitter2017"
    write(root / f"{text}.txt", "IMGID:1\nBo\tO\n")
    write(root / f"twitter2017_{short}_dict.pth", "")
    write(tmp_path / "twitter2017_images/1.jpg", "")
    write(tmp_path / f"twitter2017_aux_images/{short}/crops/1.png", "")
    files = find_split(root, split)
    assert files == SplitFiles(
        root / f"{text}.txt",
        tmp_path / "twitter2017_images",
        tmp_path / f"twitter2017_aux_images/{short}/crops",
        root / f"twitter2017_{short}_dict.pth",
    )
    assert files.task == "ner"


@pytest.mark.parametrize(("split", "short"), [("train", "train"), ("dev", "val"), ("test", "test")])
def test_mnre_layout(tmp_path, split, short):
    write(tmp_path / f"txt/ours_{short}.txt", RELATION_LINE)
    for name in (f"txt/mre_{split}_dict.pth", "ours_rel2id.json", f"img_org/{short}/a", f"img_vg/{short}/crops/a"):
        write(tmp_path / name, "")
    assert find_split(str(tmp_path), split) == SplitFiles(
        tmp_path / f"txt/ours_{short}.txt",
        tmp_path / f"img_org/{short}",
        tmp_path / f"img_vg/{short}/crops",
        tmp_path / f"txt/mre_{split}_dict.pth",
        tmp_path / "ours_rel2id.json",
    )


def test_relations_of_a_bare_text_come_from_its_training_text(tmp_path):
    write(tmp_path / "val.txt", RELATION_LINE)
    with pytest.raises(DataError, match=r"no relations.json, ours_rel2id.json or training text"):
        find_split(tmp_path, "dev")
    write(tmp_path / "train.txt", RELATION_LINE + RELATION_LINE.replace("/per/per/peer", "/a"))
    assert load_split(tmp_path, "dev").relations == ("/a", "/per/per/peer")


def test_nothing_found(tmp_path):
    with pytest.raises(
        DataError, match=r"no dev split in .*: looked for dev.txt, valid.txt, val.txt, txt/ours_val.txt"
    ):
        find_split(tmp_path, "dev")
    with pytest.raises(DataError, match="unknown split 'validation'"):
        find_split(tmp_path, "validation")


# The published loaders' output, and the real texts

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def mean_pixel(path):
    """The mean colour of what the published transforms leave of a picture."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    short = min(width, height)
    image = image.resize((int(256 * width / short), int(256 * height / short)), Image.Resampling.BILINEAR)
    left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), dtype=np.float64) / 255  # [224, 224, 3]
    return ((pixels - MEAN) / DEVIATION).mean(axis=(0, 1))


def assert_pictures(split, expected):
    """Compares mean colours with the golden ones, the first three crops padded by zeros."""
    for example, image, crops in zip(split.examples, expected["image_mean"], expected["crop_mean"], strict=True):
        np.testing.assert_allclose(mean_pixel(example.tweet.image), image, atol=1e-4)
        found = [mean_pixel(path) for path in example.tweet.objects[:3]]
        found += [np.zeros(3)] * (3 - len(found))
        np.testing.assert_allclose(found, crops, atol=1e-4)


def golden_files(task, relations=None):
    root = SHARED / "golden/tweets"
    return SplitFiles(root / f"{task}.txt", root / "images", root / "crops", root / f"{task}_dict.pth", relations)


@pytest.mark.golden
def test_golden_entities():
    split = read_split(golden_files("ner"), on_bad_image="substitute")
    expected = np.load(SHARED / "golden/tweets/ner.npz")
    assert len(split.examples) == 7
    assert split.examples[6].tweet.words[:6] == ("Patrick", "Kane", "shows", "off", "the", "Stanley")
    assert images(split)[:3] == ["74923.jpg", "inf.png", "570486.jpg"]
    assert [len(example.tweet.objects) for example in split.examples] == [0, 1, 2, 3, 4, 0, 1]
    word_labels = range(NER_LABELS.index("O"), NER_LABELS.index("X"))
    for example, labels in zip(split.examples, expected["labels"], strict=True):
        assert [NER_LABELS.index(tag) for tag in example.tags] == [label for label in labels if label in word_labels]
    assert_pictures(split, expected)


@pytest.mark.golden
def test_golden_relations():
    split = read_split(golden_files("mre", SHARED / "golden/tweets/rel2id.json"))
    expected = np.load(SHARED / "golden/tweets/mre.npz")
    assert [split.relations.index(example.relation) for example in split.examples] == expected["labels"].tolist()
    assert [len(example.tweet.objects) for example in split.examples] == [0, 2, 3, 4, 0, 2, 3, 4]
    assert_pictures(split, expected)


@pytest.mark.golden
def test_golden_missing_image():
    with pytest.raises(DataError, match=r"tweet 1: its image '74801.jpg' is missing"):
        read_split(golden_files("ner"))


@pytest.mark.golden
@pytest.mark.parametrize(
    ("split", "tweets", "words", "begun", "begun_inside"),
    [
        ("train", 4000, 64439, 6166, 186),
        ("dev", 1000, 16178, 1541, 53),
        ("test", 3257, 52822, 5072, 135),
    ],
)
def test_real_twitter(split, tweets, words, begun, begun_inside):
    examples = load_split(SHARED / "data/twitter2015", split).examples
    assert len(examples) == tweets
    assert sum(len(example.tweet.words) for example in examples) == words
    assert all(len(example.tags) == len(example.tweet.words) for example in examples)
    assert {tag for example in examples for tag in example.tags} == set(NER_LABELS[1:10])
    pairs = [pair for example in examples for pair in zip(("O", *example.tags), example.tags, strict=False)]
    assert sum(tag[0] == "B" for _, tag in pairs) == begun
    # The annotators began some entities with an I- tag, which scores as an entity all the same.
    assert sum(tag[0] == "I" and before[1:] != tag[1:] for before, tag in pairs) == begun_inside


@pytest.mark.heavy
@pytest.mark.golden
@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("train", 12247),
        ("dev", 1624),
        ("test", 1614),
    ],
)
def test_real_mnre(split, rows):
    files = find_split(SHARED / "data/mnre", split)
    data = read_split(files)
    assert len(data.examples) == rows
    assert not data.has_pictures
    assert data.relations == read_relation_dictionary(SHARED / "golden/tweets/rel2id.json")
    for example, line in zip(data.examples, files.text.read_text().splitlines(), strict=True):
        for span, key in ((example.tweet.head, "h"), (example.tweet.tail, "t")):
            name = " ".join(example.tweet.words[slice(*span)])
            assert f"'{key}': {{'name': {name!r}, 'pos': {list(span)}}}" in line
