"""Captions: many ways to say what a picture shows, or a part of it."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from .vocabulary import BACKGROUNDS, COLOURS, DIGITS, OBJECTS, PLACES, TIMES, Attributes

SYNONYMS: dict[str, tuple[str, ...]] = {
    "house": ("cottage", "home", "little house"),
    "flower": ("blossom", "daisy"),
    "tree": ("leafy tree",),
    "car": ("automobile", "motor car"),
    "boat": ("sailboat", "ship", "sailing boat"),
    "cat": ("kitten", "kitty"),
    "balloon": ("toy balloon",),
    "rocket": ("spaceship", "rocket ship"),
    "mushroom": ("toadstool",),
    "cup": ("mug", "coffee cup", "cup of coffee", "tea cup"),
    "umbrella": ("parasol",),
    "duck": ("duckling", "rubber duck"),
    "heart": ("love heart",),
    "purple": ("violet",),
    "gray": ("grey",),
    "fish": ("goldfish",),
}
IN_PLACE: dict[str, tuple[str, ...]] = {
    "meadow": (
        "in a meadow",
        "in the meadow",
        "on a meadow",
        "on the grass",
        "in the grass",
        "in a field",
        "on a hill",
    ),
    "sea": ("at sea", "on the sea", "in the sea", "by the sea", "at the sea", "on the ocean", "on the water"),
    "desert": ("in the desert", "in a desert", "on the sand", "among the dunes", "in the dunes"),
    "mountains": ("in the mountains", "in front of mountains", "near the mountains", "before a mountain"),
    "snow": ("in the snow", "on the snow", "in snow", "in a snowy landscape", "in winter", "on a snowy field"),
}
PLACE: dict[str, tuple[str, ...]] = {
    "meadow": ("a meadow", "the meadow", "a grassy field", "a green meadow", "meadow"),
    "sea": ("the sea", "the ocean", "a blue sea", "sea"),
    "desert": ("the desert", "a sandy desert", "sand dunes", "desert"),
    "mountains": ("mountains", "the mountains", "snowy mountains"),
    "snow": ("a snowy landscape", "snow", "a winter landscape", "a white winter field"),
}
AT_TIME: dict[str, tuple[str, ...]] = {
    "day": ("by day", "during the day", "at day", "on a sunny day", "in the sun", "at noon", "in daylight")
    + ("under a blue sky", "in the morning", "in the sunshine"),
    "sunset": ("at sunset", "in the evening", "at dusk", "during sunset", "in the evening light")
    + ("under an orange sky", "as the sun sets"),
    "night": ("at night", "by night", "under the stars", "in the moonlight", "on a starry night", "at midnight")
    + ("in the dark", "under the moon", "under a dark sky"),
}
TIME_TAGS: dict[str, tuple[str, ...]] = {
    "day": ("day", "daytime", "sunny", "blue sky"),
    "sunset": ("sunset", "evening", "dusk"),
    "night": ("night", "night sky", "moon and stars", "starry sky"),
}
OPENINGS = (
    "a photo of", "a picture of", "an image of", "a drawing of", "an illustration of", "an icon of", "a painting of",
    "there is", "this is", "i want", "i would like", "show me", "draw", "draw me", "please draw", "paint", "make",
    "a cartoon of", "a simple drawing of", "a sketch of", "create", "generate", "we see", "you can see", "imagine",
    "a nice picture of", "a children's book picture of", "a beautiful photo of", "a sticker of", "photo of",
    "picture of", "it is", "here is", "look at", "once upon a time there was", "behold", "a close up of", "render",
)  # fmt: skip
ENDINGS = (
    ".", "!", ", flat style", ", high quality", ", cute", ", children's book illustration", ", best quality",
    ", masterpiece", ", digital art", ", vector art", " in flat style", ", simple", ", colorful", ", detailed", ", 4k",
    ", please", " as a drawing", ", clean lines", ", cartoon", " for children", ", icon", ", highly detailed",
)  # fmt: skip
ADJECTIVES = (
    "little", "small", "big", "large", "cute", "lovely", "beautiful", "nice", "pretty", "tiny", "happy", "funny",
    "huge", "old", "new", "single", "lonely", "simple", "shiny", "friendly", "sweet", "great", "cheerful", "round",
)  # fmt: skip
FILLERS = (
    "very", "really", "just", "and", "with", "some", "thing", "style", "art", "color", "view", "scene", "standing",
    "sitting", "flying", "resting", "alone", "wonderful", "world", "here", "today", "soft", "light", "bright", "modern",
    "classic", "fantasy", "realistic", "minimal", "studio", "summer", "holiday", "magic", "dream", "quiet", "wide",
)  # fmt: skip
LETTERS = "aeioubcdfghklmnprstvwz"


class Caption(NamedTuple):
    """A text, and what of the picture it says."""

    text: str
    said: Attributes


def describe(attributes: Attributes, rng: random.Random) -> Caption:
    """A caption of a picture: now and then it leaves something out."""
    said = _said(attributes, rng)
    words = _SPEAKERS[said.layout](said, rng)
    return Caption(_dressed(words, rng), said)


def plain(a: Attributes) -> str:
    """The most ordinary caption: what a test of the finished model asks for."""
    if a.layout == "scene":
        where = IN_PLACE[a.place][0] if a.object else PLACE[a.place][0]
        thing = [_with_article(f"{a.colour} {a.object}")] if a.object else []
        return " ".join([*thing, where, AT_TIME[a.time][0]])
    noun = a.object if a.object else f"handwritten digit {a.digit}"
    text = _with_article(f"{a.colour} {noun}")
    if a.object2:
        relation = "left of" if a.layout == "beside" else "above"
        text = f"{text} {relation} {_with_article(f'{a.colour2} {a.object2}')}"
    return f"{text} on {_with_article(a.background)} background"


def _said(a: Attributes, rng: random.Random) -> Attributes:
    """What a caption says of the picture."""
    chance = rng.random()
    if a.layout == "scene":
        if a.object and chance < 0.05:
            a = a._replace(colour="")
        if rng.random() < (0.3 if a.time == "day" else 0.05):
            return a._replace(time="")
        return a._replace(place="") if a.object and rng.random() < 0.05 else a
    if chance < 0.04:
        a = a._replace(colour="", colour2="")
    return a._replace(background="") if rng.random() < 0.27 else a


def _with_article(noun: str, article: str | None = None) -> str:
    if article is None:
        article = "an" if noun[0] in "aeiou" else "a"
    return f"{article} {noun}".strip()


def _word(name: str, rng: random.Random, often: float = 0.15) -> str:
    """The word itself, sometimes a synonym."""
    return rng.choice(SYNONYMS[name]) if name in SYNONYMS and rng.random() < often else name


def _noun(name: str, colour: str, rng: random.Random) -> str:
    """A coloured thing with its article, in one of several word orders."""
    noun = _word(name, rng)
    if rng.random() < 0.15:
        noun = f"{rng.choice(ADJECTIVES)} {noun}"
    if not colour:
        return _article(noun, rng)
    hue = _word(colour, rng, 0.1)
    kind = rng.random()
    if kind < 0.76:
        front = f"{rng.choice(ADJECTIVES)} " if rng.random() < 0.1 else ""
        return _article(f"{front}{hue} {noun}", rng)
    noun = _article(noun, rng)
    return noun + rng.choice((f" in {hue}", f" that is {hue}", f" colored {hue}", f" of {hue} color", f", {hue}"))


def _article(noun: str, rng: random.Random) -> str:
    return _with_article(noun, rng.choices((None, "the", "one", ""), (6, 2, 0.4, 2.2))[0])


def _on(background: str, rng: random.Random) -> str:
    hue = _word(background, rng, 0.1)
    article = rng.choices(("a", "the", ""), (6, 2, 1))[0]
    surface = rng.choices(("background", "backdrop", "wall", "ground", "paper"), (8, 1, 0.7, 0.5, 0.5))[0]
    shade = rng.choice(("", "", "", "", "plain ", "solid ", "bright ", "simple "))
    whole = " ".join(f"{article} {shade}{hue} {surface}".split())
    lead = rng.choices(("on", "against", "in front of", "with", "over", "before"), (8, 2, 2, 2, 1, 0.5))[0]
    return f"on {hue}" if rng.random() < 0.07 else f"{lead} {whole}"


def _placed(thing: str, background: str, rng: random.Random) -> str:
    """The thing and its background, in either order or as two tags."""
    if not background:
        return thing
    kind = rng.random()
    if kind < 0.78:
        return f"{thing} {_on(background, rng)}"
    if kind < 0.9:
        return rng.choice((f"{thing}, {background} background", f"{thing}, background {background}"))
    hue = _word(background, rng, 0.1)
    return rng.choice(
        (f"a {hue} background with {thing}", f"on a {hue} background {thing}", f"{hue} background, {thing}")
    )


def _icon(a: Attributes, rng: random.Random) -> str:
    if a.background and a.colour and rng.random() < 0.06:
        return f"the {_word(a.object, rng)} is {a.colour} and the background is {a.background}"
    return _placed(_noun(a.object, a.colour, rng), a.background, rng)


def _scene(a: Attributes, rng: random.Random) -> str:
    if not a.object:
        parts = [rng.choice(PLACE[a.place]), rng.choice(AT_TIME[a.time]) if a.time else ""]
        return " ".join(part for part in parts if part)
    thing = _noun(a.object, a.colour, rng)
    if rng.random() < 0.12:
        tags = [thing, a.place, rng.choice(TIME_TAGS[a.time]) if a.time else ""]
        return ", ".join(tag for tag in tags if tag)
    around = [rng.choice(IN_PLACE[a.place])] if a.place else []
    around += [rng.choice(AT_TIME[a.time])] if a.time else []
    if rng.random() < 0.4:
        rng.shuffle(around)
    if rng.random() < 0.72:
        return " ".join([thing, *around])
    return rng.choice((", ", " ")).join([" ".join(around[:1]), " ".join([thing, *around[1:]])])


def _digit(a: Attributes, rng: random.Random) -> str:
    numeral = str(DIGITS.index(a.digit)) if rng.random() < 0.45 else a.digit
    bare = rng.choice(
        (numeral, f"digit {numeral}", f"number {numeral}", f"handwritten {numeral}", f"figure {numeral}")
        + (f"handwritten digit {numeral}", f"handwritten number {numeral}", f"numeral {numeral}")
    )
    hue = _word(a.colour, rng, 0.1) if a.colour else ""
    if hue and rng.random() < 0.72:
        return _placed(_article(f"{hue} {bare}", rng), a.background, rng)
    inked = rng.choice((f" in {hue}", f" written in {hue}", f" in {hue} ink", f", {hue}")) if hue else ""
    return _placed(_article(bare, rng) + inked, a.background, rng)


def _pair(a: Attributes, rng: random.Random, forth: Sequence[str], back: Sequence[str], whole: Sequence[str]) -> str:
    """Two things in a relation, named in either order."""
    first, second = _noun(a.object, a.colour, rng), _noun(a.object2, a.colour2, rng)
    kind = rng.random()
    if kind < 0.42:
        text = f"{first} {rng.choice(forth)} {second}"
    elif kind < 0.74:
        text = f"{second} {rng.choice(back)} {first}"
    else:
        text = rng.choice(whole).format(first, second)
    return _placed(text, a.background, rng)


def _beside(a: Attributes, rng: random.Random) -> str:
    return _pair(
        a,
        rng,
        ("left of", "to the left of", "left of", "on the left of", "and on its right", "next to", "beside", "and"),
        ("right of", "to the right of", "right of", "on the right of", "and on its left"),
        (
            "{0} on the left and {1} on the right",
            "on the left {0}, on the right {1}",
            "{1} on the right, {0} on the left",
        )
        + ("left {0}, right {1}", "on the right {1} and on the left {0}", "{0} and {1} side by side"),
    )


def _stacked(a: Attributes, rng: random.Random) -> str:
    return _pair(
        a,
        rng,
        ("above", "above", "over", "on top of", "on", "and below it", "and under it"),
        ("below", "below", "under", "beneath", "underneath", "and above it"),
        ("{0} at the top and {1} at the bottom", "at the top {0}, at the bottom {1}", "top {0}, bottom {1}")
        + ("{1} at the bottom, {0} at the top", "above {0} and below {1}", "below {1}, above {0}"),
    )


def _nothing(_: Attributes, rng: random.Random) -> str:
    return ""


_SPEAKERS = {"": _nothing, "icon": _icon, "scene": _scene, "digit": _digit, "beside": _beside, "stacked": _stacked}


def _dressed(text: str, rng: random.Random) -> str:
    """The caption with an opening, an ending, a word that says nothing, or in capitals: sometimes."""
    if not text:
        return rng.choice(("", "", "", *FILLERS, *ADJECTIVES))
    if rng.random() < 0.3:
        text = f"{rng.choice(OPENINGS)} {text}"
    if rng.random() < 0.2:
        text += rng.choice(ENDINGS)
    if rng.random() < 0.14:
        text = _sprinkled(text, rng)
    return text


def _sprinkled(text: str, rng: random.Random) -> str:
    """With one unknown word in front or behind: the model should not care."""
    word = rng.choice(FILLERS) if rng.random() < 0.6 else "".join(rng.choices(LETTERS, k=rng.randint(2, 8)))
    return f"{word} {text}" if rng.random() < 0.5 else f"{text}{rng.choice((' ', ', '))}{word}"


def corpus(count: int, seed: int) -> list[str]:
    """Captions for training the tokenizer: every word of the grammar often enough."""
    from .pictures import sample

    rng = random.Random(seed)
    names = [*OBJECTS, *COLOURS, *BACKGROUNDS, *PLACES, *TIMES, *DIGITS, *OPENINGS, *ENDINGS, *ADJECTIVES, *FILLERS]
    return [describe(sample(rng), rng).text for _ in range(count)] + names * 20
