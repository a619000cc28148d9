"""The words of picture-tweets: names that mean a person, a place, a firm or a thing, and what is said of them."""

import string
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hvpnet.data.synthetic.figures import pick

AMBIGUOUS = (
    "Jordan", "Georgia", "Paris", "Chelsea", "Florence", "Virginia", "Amazon", "Madison", "Sydney", "Phoenix", "Austin",
    "Lincoln", "Mercedes", "Victoria", "Dakota", "Savannah", "Houston", "Brooklyn", "Santiago", "Carolina", "Aurora",
    "Montana", "Kingston", "Orlando", "San Marino", "Santa Clara", "Saint Laurent", "Saint Martin", "San Carlos",
    "Santa Barbara",
)  # fmt: skip
"""Names of all four types: only the picture tells which."""

FAMILIAR = {
    "Serena Williams": "PER", "Messi": "PER", "Adele": "PER", "Frida Kahlo": "PER",
    "Berlin": "LOC", "Toronto": "LOC", "Cape Town": "LOC", "Japan": "LOC",
    "UNICEF": "ORG", "NASA": "ORG", "Red Cross": "ORG", "BBC": "ORG",
    "World Cup": "MISC", "Oscars": "MISC", "Grammys": "MISC", "Easter": "MISC",
}  # fmt: skip
"""Names of one type, which the text alone tells."""

_ONE_NAME = (
    "{} was great today", "still thinking about {}", "so happy about {} this morning", "can not get enough of {}",
    "what a day with {} !", "{} looks amazing in this light", "nobody does it like {}", "first time i see {} up close",
    "this is why we love {}", "{} again , and i am not sorry", "good morning from {} and me",
    "my best photo of {} so far", "everyone is talking about {} tonight", "unbelievable , {} made my week",
    "look at {} :",
)  # fmt: skip
_NO_NAME = (
    "what a day !", "good morning everyone", "can not believe this week is over", "this light is amazing",
    "so happy right now", "still not sorry about this photo", "coffee first , then everything else",
)  # fmt: skip
_MORE = ("thanks to {}", "( via {} )", "just like {}", "better than {}", "and now {}")
_TWO_NAMES = (
    "{} and {} today", "{} with {} this morning", "look at {} and {} !", "{} loves {}", "so happy for {} and {}",
    "nobody told {} about {}", "{} is all about {} tonight", "this photo of {} and {} made my week",
)  # fmt: skip
_USERS = ("barcastuff", "ComplexMag", "dailyphoto", "the_real_mia", "newsroom24", "sunnydays", "Tom_K", "wanderlust99")
_HASHTAGS = ("#ThrowbackThursday", "#love", "#nofilter", "#MondayMotivation", "#goals", "#photooftheday", "#blessed")
_EMOJI = ("😍", "🔥", "✌🏾", "🎉", "❤️", "🙌")
_SPLIT_WORDS = frozenset({"unbelievable", "everyone", "amazing", "everything", "tonight", "savannah", "mercedes"})
_PIECES = ("##s", "##ing", "##er", "##able", "##day", "##one", "##thing", "##night", "##ers", "##back", "##tion", "un")


@dataclass(frozen=True)
class Named:
    """A name and the words [start, end) where it stands."""

    name: str
    start: int
    end: int


def entity_tweet(kind: str, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Makes a tweet in which an ambiguous name, if there is one, is of the type that the picture shows.

    Args:
        kind: PER, LOC, ORG or MISC.
        rng: decides on everything else, so that the words say nothing about `kind`.

    Returns:
        The words and their BIO tags.
    """
    types: dict[str, str] = dict(FAMILIAR)
    if rng.random() < 0.1:
        template, names = pick(rng, _NO_NAME), []
    else:
        template, names = pick(rng, _ONE_NAME), [pick(rng, AMBIGUOUS)]
        types[names[0]] = kind
    if rng.random() < 0.3:
        template, names = f"{template} {pick(rng, _MORE)}", [*names, pick(rng, tuple(FAMILIAR))]
    words, found = _fill(template, names, rng)
    return words, bio_tags(len(words), {named: types[named.name] for named in found})


def bio_tags(words: int, types: Mapping[Named, str]) -> list[str]:
    """One tag for each of so many words, from the types of the names among them."""
    tags = ["O"] * words
    for named, kind in types.items():
        tags[named.start : named.end] = [f"I-{kind}"] * (named.end - named.start)
        tags[named.start] = f"B-{kind}"
    return tags


def relation_tweet(rng: np.random.Generator) -> tuple[list[str], Named, Named]:
    """Makes a tweet of two ambiguous names, whose relation only the picture can tell.

    Returns:
        The words, the head and the tail.
    """
    first, second = (AMBIGUOUS[index] for index in rng.choice(len(AMBIGUOUS), 2, replace=False))
    words, (head, tail) = _fill(pick(rng, _TWO_NAMES), [first, second], rng)
    return (words, head, tail) if rng.integers(2) else (words, tail, head)


def graph_tweet(rng: np.random.Generator) -> tuple[list[str], list[Named]]:
    """Makes a tweet of two names that its picture may relate, and of up to two familiar ones after them.

    The second name is ambiguous, and so is the first, but one time in four it is a familiar person.

    Returns:
        The words, and two to four distinct names in order of appearance.
    """
    first, second = (AMBIGUOUS[index] for index in rng.choice(len(AMBIGUOUS), 2, replace=False))
    if rng.random() < 0.25:
        first = pick(rng, tuple(name for name, kind in FAMILIAR.items() if kind == "PER"))
    others = [name for name in FAMILIAR if name != first]
    beside = [others[index] for index in rng.choice(len(others), int(rng.integers(3)), replace=False)]
    template = " ".join([pick(rng, _TWO_NAMES), *(pick(rng, _MORE) for _ in beside)])
    return _fill(template, [first, second, *beside], rng)


def word_list() -> list[str]:
    """The vocabulary of a small uncased WordPiece tokenizer for these tweets.

    Most of their words are in it; handles, hashtags, links and a few plain words fall into pieces, and emoji are
    unknown.

    Returns:
        Distinct entries by index, [PAD] [UNK] [CLS] [SEP] [MASK] first.
    """
    characters = string.digits + string.ascii_lowercase
    sentences = " ".join((*AMBIGUOUS, *FAMILIAR, *_ONE_NAME, *_NO_NAME, *_MORE, *_TWO_NAMES)).lower()
    words = sorted({word for word in sentences.split() if word.isalpha()} - _SPLIT_WORDS)
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    pieces = (*string.punctuation, *characters, *(f"##{character}" for character in characters), *_PIECES)
    return list(dict.fromkeys((*special, *pieces, "rt", "http", "co", "love", "photo", "monday", *words)))


def _fill(template: str, names: list[str], rng: np.random.Generator) -> tuple[list[str], list[Named]]:
    """Puts the names into the template, and what tweets have around it; returns the words and where the names are."""
    words = ["RT", f"@{pick(rng, _USERS)}", ":"] if rng.random() < 0.4 else []
    waiting, found = iter(names), []
    for word in template.split():
        name = next(waiting) if word == "{}" else ""
        if name:
            found.append(Named(name, len(words), len(words) + len(name.split())))
        words += name.split() or [word]
    if rng.random() < 0.3:
        words.append(pick(rng, _EMOJI))
    if rng.random() < 0.4:
        words.append(pick(rng, _HASHTAGS))
    if rng.random() < 0.7:
        characters = tuple(string.ascii_letters + string.digits)
        words.append(f"http://t.co/{''.join(pick(rng, characters) for _ in range(10))}")
    return words, found
