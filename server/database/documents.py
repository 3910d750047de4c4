"""JSON as text: workflows, outputs and what else is passed on far more often than looked into."""

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from server.database.errors import WrongRequest


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON text. Answers can be put together from texts, and large ones need not be read to be passed on."""

    text: str

    @staticmethod
    def of(value: Any) -> "Document":
        """Write a value as JSON, keeping the order of keys.

        Raises:
            WrongRequest: it holds NaN, an infinity or something that is no JSON, or it is nested too deeply.
        """
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            raise WrongRequest(f"this cannot be written as JSON: {error}") from error
        except RecursionError as error:
            raise WrongRequest("this cannot be written as JSON: it is nested too deeply") from error
        try:
            text.encode()
        except UnicodeEncodeError:  # half a surrogate pair: only its escape can be stored
            text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        return Document(text)

    def value(self) -> Any:
        """Read it. Takes about 10 ms per MB."""
        return json.loads(self.text)

    def digest(self) -> bytes:
        """32 bytes that say what it is."""
        return sha256(self.text.encode()).digest()


EMPTY = Document("{}")
