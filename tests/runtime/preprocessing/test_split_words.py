"""Splitting of tweets into words."""

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from places import SHARED

from hvpnet_runtime.errors import TextError
from hvpnet_runtime.preprocessing.split_words import Word, split_words


def words(text: str) -> list[str]:
    return [word.text for word in split_words(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "RT @JayKenMinaj_: Me outside of where George Zimmerman got shot at. http://t.co/Z3neVBQ7vF",
            "RT @JayKenMinaj_ : Me outside of where George Zimmerman got shot at . http://t.co/Z3neVBQ7vF",
        ),
        (
            'Obama\'s 1st trip -- "historic"... #SSM #2015!!! (via @cnn)',
            'Obama \'s 1st trip -- " historic " ... #SSM #2015 !!! ( via @cnn )',
        ),
        (
            "I don't like O\u2019Hare\u2019s same-sex bath--and 12-year-old rock'n'roll it's",
            "I don't like O\u2019Hare \u2019s same-sex bath -- and 12-year-old rock'n'roll it 's",
        ),
        (
            "$2.99, 1,000,000 at 15:31 on 9/11: 3.5M v2.0. 7, 8 a.b 50%",
            "$ 2.99 , 1,000,000 at 15:31 on 9/11 : 3.5M v2.0 . 7 , 8 a . b 50 %",
        ),
        (
            "see https://example.org/a_(b)?q=1,2&r#x, (www.nasa.gov). HTTP://T.CO/x\u2026",
            "see https://example.org/a_(b)?q=1,2&r#x , ( www.nasa.gov ) . HTTP://T.CO/x \u2026",
        ),
        ("https://", "https : //"),
        ("RT@Gizmodo &amp; w/ @ # _", "RT @Gizmodo & amp ; w / @ # _"),
        (
            "Peace out Arizona.\u270c\U0001f3fe\U0001f334\U0001f334Cana",
            "Peace out Arizona . \u270c\U0001f3fe \U0001f334 \U0001f334 Cana",
        ),
        # family and rainbow flag, held together by joiners
        (
            "\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f3f3\ufe0f\u200d\U0001f308",
            "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308",
        ),
        # two national flags, a keycap, a heart with its style
        (
            "\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea1\ufe0f\u20e3\u2764\ufe0f",
            "\U0001f1eb\U0001f1f7 \U0001f1e9\U0001f1ea 1\ufe0f\u20e3 \u2764\ufe0f",
        ),
        # the flag of England, spelled in tags
        (
            "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f!",
            "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f !",
        ),
        # combining marks and joiners do not break words
        ("cafe\u0301s \u0939\u093f\u0928\u094d\u0926\u0940.", "cafe\u0301s \u0939\u093f\u0928\u094d\u0926\u0940 ."),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
        ("\uff20cnn\uff03\u6771\u4eac", "\uff20cnn \uff03\u6771\u4eac"),
        ("\u200b a\u200b", "\u200b a \u200b"),
        ("", ""),
        (" \t\n\u3000\xa0", ""),
    ],
)
def test_tweets(text: str, expected: str) -> None:
    assert words(text) == expected.split()


tweet_like = st.lists(
    st.sampled_from(["http://", "www.", "@", "#", "'s", "'", "-", "...", "1", "a", "\u00e9", "\u0301", " ", ".", "/"])
    | st.sampled_from(["\u200d", "\ufe0f", "\u20e3", "\U0001f3fe", "\U0001f1eb", "\U0001f468", "\u2764", "\U000e0067"])
    | st.characters()
).map("".join)


@given(st.text() | tweet_like)
@example("\ud800 \x1c\x85\u2028\ufeff")
def test_every_visible_character_belongs_to_exactly_one_word(text: str) -> None:
    covered = [0] * len(text)
    end = 0
    for word in split_words(text):
        assert word.start >= end
        assert word.end > word.start
        assert text[word.start : word.end] == word.text
        assert not any(map(str.isspace, word.text))
        end = word.end
        for index in range(word.start, word.end):
            covered[index] += 1
    assert covered == [0 if character.isspace() else 1 for character in text]


@given(tweet_like)
def test_splitting_a_word_again_keeps_emoji_and_plain_words(text: str) -> None:
    for word in split_words(text):
        if re.fullmatch(r"[a-z0-9]+", word.text):
            assert split_words(word.text) == [Word(word.text, 0, len(word.text))]


@pytest.mark.parametrize("text", ["http://" + "." * 50_000, "a-" * 50_000, "http://" * 20_000, "1." * 50_000 + "!"])
def test_long_texts_are_covered(text: str) -> None:
    assert "".join(words(text)) == text


@pytest.mark.parametrize("text", [None, 3, b"bytes", ["a"]])
def test_not_a_string(text: Any) -> None:
    with pytest.raises(TextError, match="must be a string"):
        split_words(text)


@pytest.mark.golden
def test_published_words_survive_splitting() -> None:
    """A published word that is a plain word, mention, hashtag or URL comes back as it was, in a real tweet's text."""
    lines = (SHARED / "data/twitter2015/test.txt").read_text(encoding="utf-8").splitlines()
    published = [line.split("\t")[0] for line in lines if "\t" in line]
    kept = [word for word in published if re.fullmatch(r"[@#]?\w+|https?://[\w./]*\w", word)]
    assert len(kept) > 0.8 * sum(any(map(str.isalnum, word)) for word in published)
    assert words(" ".join(kept)) == kept
