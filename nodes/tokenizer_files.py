"""Where the vocabulary of a single-file model is: beside it, among the models, in the hub's cache, or on the hub.

All families of Stable Diffusion share CLIP's vocabulary, and those with a T5 share T5's. Single files do not hold them.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from graph.folders import Folders
from nodes.model_errors import ModelError
from nodes.model_folders import CLIP_VOCABULARY, T5_VOCABULARY, tokenizer_files
from nodes.values import Tower, Weights

log = logging.getLogger("latentloom.models")

UNIGRAM = "Unigram"
"""The kind of T5's vocabulary in a `tokenizer.json`; CLIP's is of another."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Whose it is, the name of its folder among the tokenizers, and which files of which repository hold it."""

    owner: str
    folder: str
    repository: str
    files: tuple[str, ...]

    def is_in(self, folder: Path) -> bool:
        whole = folder / "tokenizer.json"
        if whole.is_file():
            return (_kind(whole) == UNIGRAM) == (self is T5)
        return all((folder / name).is_file() for name in self.files)


CLIP = Vocabulary("CLIP", "clip", "openai/clip-vit-large-patch14", CLIP_VOCABULARY)
T5 = Vocabulary("T5", "t5", "google/t5-v1_1-xxl", T5_VOCABULARY)


def _kind(path: Path) -> str | None:
    try:
        return json.loads(path.read_bytes())["model"]["type"]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def find_tokenizer(path: Path, folders: Folders, tower: Tower = "CLIP-L") -> Weights:
    """The tokenizer for a text encoder in a file or folder: the first of the places above that has one.

    Raises ModelError, which names the files and the command that fetches them.
    """
    vocabulary = T5 if tower == "T5" else CLIP
    home = folders.models("tokenizers") / vocabulary.folder
    for folder in _places(path, home):
        if vocabulary.is_in(folder):
            return tokenizer_files(folder, vocabulary.folder, vocabulary.files)
    found = _from_hub(vocabulary, home)
    if found is not None:
        return tokenizer_files(found, vocabulary.folder, vocabulary.files)
    missing = f"{' and '.join(vocabulary.files)} {'is' if len(vocabulary.files) == 1 else 'are'} missing"
    raise ModelError(
        home,
        f"{missing}: a model in a single file needs {vocabulary.owner}'s vocabulary, which it does not hold",
        f"Fetch them once, on any machine that is online: hf download {vocabulary.repository} "
        f"{' '.join(vocabulary.files)} --local-dir {home}",
    )


def _places(path: Path, home: Path) -> Iterator[Path]:
    tokenizers = home.parent
    yield path
    if path.name.startswith("text_encoder"):
        yield path.parent / path.name.replace("text_encoder", "tokenizer")
    yield path.parent / "tokenizer"
    yield path.parent
    yield home
    yield tokenizers
    if tokenizers.is_dir():
        yield from sorted(folder for folder in tokenizers.iterdir() if folder.is_dir())


def _from_hub(vocabulary: Vocabulary, home: Path) -> Path | None:
    """The folder of the files in the hub's local cache, or `home` after fetching them; None offline."""
    import huggingface_hub
    from huggingface_hub import constants, try_to_load_from_cache

    cached = [
        try_to_load_from_cache(vocabulary.repository, name, cache_dir=constants.HF_HUB_CACHE)
        for name in vocabulary.files
    ]
    if all(isinstance(each, str) for each in cached):
        return Path(str(cached[0])).parent
    if constants.HF_HUB_OFFLINE:
        return None
    try:
        for name in vocabulary.files:
            cast(Any, huggingface_hub).hf_hub_download(vocabulary.repository, name, local_dir=home)
    except Exception as error:  # whatever a network does wrong, the files are not there
        log.warning("%s's vocabulary could not be fetched: %s", vocabulary.owner, str(error).partition("\n")[0])
        return None
    log.info("fetched %s's vocabulary into %s", vocabulary.owner, home)
    return home
