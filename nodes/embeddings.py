"""Textual inversions: words of a prompt, `embedding:name`, that stand for learned vectors. Imports no torch."""

import difflib
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from graph.folders import Folders, files_below
from nodes.maths.prompt_weights import parse_weights
from nodes.weight_files import read_header

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

log = logging.getLogger("latentloom.models")

FOLDER = "embeddings"
SUFFIXES = (".safetensors", ".pt", ".bin")
"""Of files that a name without suffix may mean, the best first."""
_MENTION = re.compile(r"(?:^|[ \n])embedding:(\S*)")


class Mention(NamedTuple):
    """A piece of a prompt: a text, or the name of an embedding."""

    text: str
    name: str | None = None


def pieces(text: str) -> Iterator[Mention]:
    """A stretch of a prompt, cut where it mentions embeddings. A space before one belongs to it."""
    at = 0
    for found in _MENTION.finditer(text):
        if found.start() > at:
            yield Mention(text[at : found.start()])
        yield Mention(found[0], found[1])
        at = found.end()
    if at < len(text) or not text:
        yield Mention(text[at:])


class EmbeddingMentions:
    """The files in `models/embeddings/` that a prompt mentions, so that they count among what it says."""

    def names(self, folders: Folders) -> Sequence[str]:
        return files_below(folders.models(FOLDER), frozenset(SUFFIXES))

    def mentioned(self, folders: Folders, text: str) -> Sequence[Path]:
        if "embedding:" not in text:
            return ()
        mentions = [piece.name for part in parse_weights(text) for piece in pieces(part.text) if piece.name]
        return [found.path for name in mentions if (found := find(folders, name))]

    def all(self, folders: Folders) -> Sequence[Path]:
        return [folders.models(FOLDER) / name for name in self.names(folders)]


EMBEDDINGS = EmbeddingMentions()


class Found(NamedTuple):
    """The file that a name means, and what of the name is left over, which is text."""

    path: Path
    rest: str


def find(folders: Folders, name: str) -> Found | None:
    """The file that a word after `embedding:` means.

    A path below the folder goes before a name in any sub-folder, of which the first by depth and alphabet counts; a
    name with its suffix before one without, and the word as it stands before the word without commas at its end.
    Nothing outside the folder is ever looked at.
    """
    names = EMBEDDINGS.names(folders)
    bare = name.rstrip(",")
    for word in dict.fromkeys((name, bare)):
        found = _called(names, word)
        if found is not None:
            return Found(folders.models(FOLDER) / found, name[len(word) :])
    return None


def _called(names: Sequence[str], word: str) -> str | None:
    wanted = [word, *(f"{word}{suffix}" for suffix in SUFFIXES)]
    at_top = next((each for each in wanted if each in names), None)
    if at_top is not None or not word:
        return at_top
    deep = sorted(names, key=lambda each: (each.count("/"), each))
    return next((each for end in wanted for each in deep if each.endswith(f"/{end}")), None)


def warn_unknown(folders: Folders, name: str) -> None:
    """Say in the log that there is no such embedding, and which one is meant perhaps."""
    known = sorted({PurePosixPath(each).stem for each in EMBEDDINGS.names(folders)})
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known[:20]) or 'none'}"
    log.warning("embedding:%s is ignored, there is no such file in %s; %s", name, folders.models(FOLDER), hint)


def read_vectors(path: Path, width: int, *, second: bool) -> "Float[Tensor, 'words width'] | None":
    """The vectors of a file for a text encoder of a width; None, with a warning, if it has none. Raises ModelError.

    Args:
        second: whether it is the second of SDXL's encoders.
    """
    header = read_header(path)
    order = ("clip_g", "clip_l") if second else ("clip_l", "clip_g")
    names = [*(name for name in order if name in header), *(name for name in sorted(header) if name not in order)]
    fitting = (name for name in names if len(header[name].shape) in (1, 2) and header[name].shape[-1] == width)
    chosen = next(fitting, None)
    if chosen is None:
        shapes = ", ".join(str(list(entry.shape)) for entry in header.values())
        log.warning("%s is ignored by a text encoder of width %d: its vectors are %s", path.name, width, shapes)
        return None
    import torch

    from nodes.open_weights import OpenWeights

    return OpenWeights().tensor(path, chosen).to(torch.float32).reshape(-1, width)
