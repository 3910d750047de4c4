"""Where the vocabulary of a single-file model is: beside it, among the models, in the hub's cache, or on the hub.

All families of Stable Diffusion share CLIP's vocabulary, which single files do not hold.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from graph.folders import Folders
from nodes.model_errors import ModelError
from nodes.model_folders import tokenizer_files
from nodes.values import Weights

log = logging.getLogger("latentloom.models")

REPOSITORY = "openai/clip-vit-large-patch14"
FILES = ("vocab.json", "merges.txt")


def find_tokenizer(path: Path, folders: Folders) -> Weights:
    """The tokenizer for a model in a file: the first of the places above that has one.

    Raises ModelError, which names the files and the command that fetches them.
    """
    home = folders.models("tokenizers") / "clip"
    for folder in _places(path, folders.models("tokenizers")):
        if (folder / "tokenizer.json").is_file() or all((folder / name).is_file() for name in FILES):
            return tokenizer_files(folder, "clip")
    found = _from_hub(home)
    if found is not None:
        return tokenizer_files(found, "clip")
    raise ModelError(
        home,
        f"{' and '.join(FILES)} are missing: a model in a single file needs CLIP's vocabulary, which it does not hold",
        f"Fetch them once, on any machine that is online: hf download {REPOSITORY} {' '.join(FILES)} "
        f"--local-dir {home}",
    )


def _places(path: Path, tokenizers: Path) -> Iterator[Path]:
    yield path
    yield path.parent / "tokenizer"
    yield path.parent
    yield tokenizers / "clip"
    yield tokenizers
    if tokenizers.is_dir():
        yield from sorted(folder for folder in tokenizers.iterdir() if folder.is_dir())


def _from_hub(home: Path) -> Path | None:
    """The folder of the files in the hub's local cache, or `home` after fetching them; None offline."""
    import huggingface_hub
    from huggingface_hub import constants, try_to_load_from_cache

    cached = [try_to_load_from_cache(REPOSITORY, name, cache_dir=constants.HF_HUB_CACHE) for name in FILES]
    if all(isinstance(each, str) for each in cached):
        return Path(str(cached[0])).parent
    if constants.HF_HUB_OFFLINE:
        return None
    try:
        for name in FILES:
            cast(Any, huggingface_hub).hf_hub_download(REPOSITORY, name, local_dir=home)
    except Exception as error:  # whatever a network does wrong, the files are not there
        log.warning("CLIP's vocabulary could not be fetched: %s", str(error).partition("\n")[0])
        return None
    log.info("fetched CLIP's vocabulary into %s", home)
    return home
