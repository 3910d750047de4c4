"""Which texts a database holds."""

from server.database.errors import WrongRequest


def storable(what: str, text: str, most: int = 1000) -> str:
    """The text itself, refused with WrongRequest where it is longer than `most` characters or no database holds it."""
    if len(text) > most:
        raise WrongRequest(f"the {what} is {len(text)} characters long; at most {most} are possible")
    if "\0" in text or not _has_encoding(text):
        raise WrongRequest(f"the {what} holds a character that cannot be stored: {text!a:.80}")
    return text


def made_storable(text: str, most: int = 1000) -> str:
    """The text as far as a database holds it: for what a stranger said."""
    return text.replace("\0", "").encode(errors="replace").decode()[:most]


def _has_encoding(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
