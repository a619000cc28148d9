"""What `hvpnet data check` counts, and what it says is missing."""

import json
import shutil

import pytest
import torch
from picture_files import picture_file

from hvpnet.cli import main
from hvpnet.data.check import PartReport, check_data

TWEET = "IMGID:{}\nJordan\tB-PER\n\n"
PAIR = (
    "{{'token': ['Ann', 'met', 'Bo'], 'h': {{'pos': [0, 1]}}, 't': {{'pos': [2, 3]}}, 'img_id': '{}.jpg',"
    " 'relation': '/per/per/peer'}}\n"
)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture_file("png" if path.suffix == ".png" else "jpeg"))


@pytest.fixture
def twitter(tmp_path):
    """Twitter-2015 as published, of two tweets a split, of which the second shows the picture of the first again."""
    root = tmp_path / "twitter2015"
    root.mkdir()
    for split, (text, number) in {"train": ("train", 1), "val": ("valid", 2), "test": ("test", 3)}.items():
        (root / f"{text}.txt").write_text(TWEET.format(number) * 2)
        picture(tmp_path / f"twitter2015_images/{number}.jpg")
        crops = [f"{number}_{crop}.png" for crop in range(4)]  # a model reads three
        for crop in crops:
            picture(tmp_path / f"twitter2015_aux_images/{split}/crops/{crop}")
        torch.save({f"{number}.jpg": crops}, root / f"twitter2015_{split}_dict.pth")
    return root


@pytest.fixture
def mnre(tmp_path):
    """MNRE as published: lists of crops are by row."""
    root = tmp_path / "RE_data"
    (root / "txt").mkdir(parents=True)
    (root / "ours_rel2id.json").write_text('{"None": 0, "/per/per/peer": 1}')
    for split, name in {"train": "train", "val": "dev", "test": "test"}.items():
        (root / f"txt/ours_{split}.txt").write_text(PAIR.format("a") + PAIR.format("b"))
        for each in "ab":
            picture(root / f"img_org/{split}/{each}.jpg")
            picture(root / f"img_vg/{split}/crops/{each}.png")
        torch.save({0: ["a.png"], 1: ["b.png", "a.png"]}, root / f"txt/mre_{name}_dict.pth")
    return root


def test_twitter_2015(twitter, capsys):
    assert main(["data", "check", str(twitter)]) == 0
    assert capsys.readouterr().out == (
        "train  2 tweets, 1 pictures, 3 crops\n"
        "dev    2 tweets, 1 pictures, 3 crops\n"
        "test   2 tweets, 1 pictures, 3 crops\n"
        "nothing is missing\n"
    )


def test_mnre(mnre):
    assert check_data(mnre) == dict.fromkeys(("train", "dev", "test"), PartReport(2, 2, 2))


def test_everything_that_is_missing_is_said_at_once(twitter, capsys):
    images, crops = twitter.with_name("twitter2015_images"), twitter.with_name("twitter2015_aux_images")
    (twitter / "valid.txt").unlink()
    (twitter / "train.txt").write_text("".join(map(TWEET.format, (1, 7, 8, 9))))
    (images / "9.jpg").write_bytes(b"no picture")
    (crops / "train/crops/1_1.png").unlink()
    (twitter / "twitter2015_test_dict.pth").unlink()
    assert main(["data", "check", str(twitter)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[:3] == [
        "train  4 tweets, 1 pictures, 2 crops",
        "dev    0 tweets, 0 pictures, 0 crops",
        "test   2 tweets, 1 pictures, 0 crops",
    ]
    assert out[3] == f"missing in train: 2 of 4 pictures, the first: 7.jpg is not in {images}"
    assert out[4].startswith(
        f"missing in train: 1 of 4 pictures, the first: picture {images / '9.jpg'} is not an image"
    )
    assert out[5:] == [
        f"missing in train: 1 of 3 crops, the first: 1_1.png is not in {crops / 'train/crops'}",
        f"missing in dev: no dev split in {twitter}: looked for dev.txt, valid.txt, val.txt, txt/ours_val.txt",
        (
            "missing in test: no lists of crops: looked for test_objects.json, twitter2015_test_dict.pth,"
            " txt/mre_test_dict.pth"
        ),
    ]


def test_pictures_that_are_replaced_are_not_missing(twitter, capsys):
    images = twitter.with_name("twitter2015_images")
    (images / "1.jpg").unlink()
    picture(images / "inf.png")
    assert main(["data", "check", str(twitter), "--split", "train", "--on-bad-image", "substitute"]) == 0
    assert capsys.readouterr().out == (
        "train  2 tweets, 0 pictures (1 more replaced by inf.png), 3 crops\nnothing is missing\n"
    )
    assert main(["data", "check", str(twitter), "--split", "train", "--json"]) == 1
    (train,) = json.loads(capsys.readouterr().out)["parts"].values()
    assert train == {
        "tweets": 2,
        "pictures": 0,
        "crops": 3,
        "replaced": 0,
        "missing": [f"1 of 1 pictures, the first: 1.jpg is not in {images}"],
    }


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: shutil.rmtree(root / "img_org"), "no folder of pictures: looked for images in {}"),
        (lambda root: shutil.rmtree(root / "img_vg"), "no folder of crops, which mre_train_dict.pth lists"),
        (lambda root: (root / "txt/mre_train_dict.pth").write_text("no"), "{}/txt/mre_train_dict.pth: cannot be read"),
        (
            lambda root: torch.save({9: ["a.png"]}, root / "txt/mre_train_dict.pth"),
            "mre_train_dict.pth lists crops for",
        ),
        (lambda root: (root / "txt/ours_train.txt").write_text("{"), "{}/txt/ours_train.txt:1: expected a dict"),
        (
            lambda root: (root / "txt/ours_train.txt").write_text(PAIR.format("../a")),
            "{0}/img_org/train: the name '../a.jpg' leads out of {0}/img_org/train",
        ),
    ],
)
def test_one_thing_missing(mnre, damage, said):
    damage(mnre)
    (missing,) = check_data(mnre, splits=("train",))["train"].missing
    assert missing.startswith(said.format(mnre))


def test_without_crops_nothing_is_missing(mnre):
    """A grounder may find them."""
    shutil.rmtree(mnre / "img_vg")
    for lists in (mnre / "txt").glob("*.pth"):
        lists.unlink()
    assert check_data(mnre)["test"] == PartReport(2, 2, 0)


def test_json_lines(tmp_path, capsys):
    picture(tmp_path / "a.jpg")
    (tmp_path / "tweets.jsonl").write_text(
        '{"text": "Ann", "image": "a.jpg", "objects": ["a.jpg", "b.png"]}\n\n'
        '{"text": "Bo", "image": "a.jpg"}\n{"tex": 1}\n'
    )
    assert main(["data", "check", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "tweets.jsonl  2 tweets, 1 pictures, 1 crops",
        (
            "missing in tweets.jsonl: line 4 is no tweet: unknown keys 'tex': a tweet has id, text, words, image,"
            " objects, boxes, head, tail"
        ),
        f"missing in tweets.jsonl: 1 of 2 crops, the first: b.png is not in {tmp_path}",
    ]
    (tmp_path / "tweets.jsonl").write_text('{"text": "Ann", "image": "a.jpg"}\n')
    assert check_data(tmp_path / "tweets.jsonl") == {"tweets.jsonl": PartReport(1, 1, 0)}
    (tmp_path / "tweets.jsonl").write_text("\n")
    assert check_data(tmp_path / "tweets.jsonl")["tweets.jsonl"].missing == ("no tweets in it",)


@pytest.mark.parametrize(
    ("name", "said"),
    [("none", "none does not exist: give the folder of a data set"), ("a.txt", "a.txt is no data set: give a folder")],
)
def test_no_data_set(tmp_path, capsys, name, said):
    (tmp_path / "a.txt").write_text("")
    assert main(["data", "check", str(tmp_path / name)]) == 1
    assert said in capsys.readouterr().err
