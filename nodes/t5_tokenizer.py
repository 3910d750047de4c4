"""T5's tokenizer, from `tokenizer.json` or sentencepiece's own `spiece.model`."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from nodes.clip_tokenizer import whole_characters
from nodes.model_errors import ModelError
from nodes.values import Weights

END, PAD = "</s>", "<pad>"
AGAIN = "Copy or download it again."


class T5Tokenizer:
    """Text to token ids; `end` closes a text, `pad` fills up what is too short."""

    def __init__(self, folder: Path) -> None:
        saved = folder / "tokenizer.json"
        self._ids, number = _from_json(saved) if saved.is_file() else _from_sentencepiece(folder / "spiece.model")
        self.end, self.pad = (_known(folder, token, number(token)) for token in (END, PAD))

    def ids(self, text: str) -> list[int]:
        """The tokens of the text alone, without an end. Any text has some, or none."""
        return self._ids(whole_characters(text))


Ids = Callable[[str], list[int]]
Number = Callable[[str], int | None]


def _from_json(path: Path) -> tuple[Ids, Number]:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for whatever is wrong with the file
        raise ModelError(path, f"the tokenizer cannot be read ({error})", AGAIN) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.token_to_id


def _from_sentencepiece(path: Path) -> tuple[Ids, Number]:
    from sentencepiece import SentencePieceProcessor

    try:
        processor = SentencePieceProcessor(model_proto=path.read_bytes())
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(path, f"the tokenizer cannot be read ({error})", AGAIN) from error

    def number(token: str) -> int | None:
        found = processor.piece_to_id(token)
        return found if processor.id_to_piece(found) == token else None

    return lambda text: processor.encode(text), number


def _known(folder: Path, token: str, number: int | None) -> int:
    if number is None:
        raise ModelError(folder, f"the tokenizer has no token {token!r}, as T5's has", "Take T5's own.")
    return number


@lru_cache(maxsize=8)
def load_t5_tokenizer(files: Weights) -> T5Tokenizer:
    """The tokenizer of a reference, read once."""
    return T5Tokenizer(files.path)
