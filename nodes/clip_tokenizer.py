"""CLIP's tokenizer on the `tokenizers` library: the same ids as transformers' CLIPTokenizer, without its import."""

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nodes.model_errors import ModelError
from nodes.values import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class ClipTokenizer:
    """Text to token ids; `start`, `end` and `pad` are the ids that frame and fill a chunk."""

    def __init__(self, folder: Path) -> None:
        special = _special_tokens(folder)
        self._tokenizer = _read(folder, special)
        self.start = self._id(folder, special["bos_token"])
        self.end = self._id(folder, special["eos_token"])
        self.pad = self._id(folder, special["pad_token"])

    def _id(self, folder: Path, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise ModelError(folder, f"the tokenizer has no token {token!r}", "Take the whole folder from one model.")
        return found

    def ids(self, text: str) -> list[int]:
        """The tokens of the text alone, without start and end. Any text has some, or none."""
        return self._tokenizer.encode(whole_characters(text), add_special_tokens=False).ids


def whole_characters(text: str) -> str:
    """A text as libraries take it: a lone surrogate, which is not text, becomes the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@lru_cache(maxsize=8)
def load_tokenizer(files: Weights) -> ClipTokenizer:
    """The tokenizer of a reference, read once."""
    return ClipTokenizer(files.path)


def _special_tokens(folder: Path) -> dict[str, str]:
    found = {"bos_token": START, "eos_token": END}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            for key, token in _read_json(folder / name).items():
                text = cast("dict[str, Any]", token).get("content") if isinstance(token, dict) else token
                if key in ("bos_token", "eos_token", "pad_token") and isinstance(text, str):
                    found[key] = text
    return {"pad_token": found["eos_token"], **found}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError, OSError) as error:
        raise ModelError(path, f"the file cannot be read ({error})") from error


def _read(folder: Path, special: dict[str, str]) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        else:
            tokenizer = _from_vocabulary(folder)
    except Exception as error:  # the library raises plain Exception for whatever is wrong with the files
        raise ModelError(folder, f"the tokenizer cannot be read ({error})", "Copy or download it again.") from error
    known = {*special.values()} & {*tokenizer.get_vocab()}
    cast(Any, tokenizer).add_special_tokens(sorted(known))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _from_vocabulary(folder: Path) -> "Tokenizer":
    """CLIP's byte-level BPE as transformers puts it together from `vocab.json` and `merges.txt`."""
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    model = cast(Any, BPE).from_file(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        unk_token=END,
        continuing_subword_prefix="",
        end_of_word_suffix="</w>",
    )
    tokenizer = Tokenizer(model)
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer
