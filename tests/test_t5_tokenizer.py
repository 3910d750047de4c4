"""T5's tokenizer: transformers' ids, from either of the files that hold it, wherever they are."""

import io
from pathlib import Path
from typing import Any, cast

import pytest
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

from graph.folders import Folders
from nodes.model_errors import ModelError
from nodes.t5_tokenizer import T5Tokenizer, load_t5_tokenizer
from nodes.tokenizer_files import find_tokenizer
from tests import t5_models, tiny_models

TEXTS = ("the blue cat", " The  dog,\n\tand a 猫!", "", "a" * 40, "</s>", "x\u200by")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return t5_models.write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def reference(vocabulary: list[tuple[str, float]]) -> Any:
    from transformers.models.t5.tokenization_t5 import T5Tokenizer as Theirs

    return cast(Any, Theirs)(vocab=vocabulary, extra_ids=0)


def test_tokens_are_those_of_transformers(folder: Path):
    ours, theirs = T5Tokenizer(folder), reference(t5_models.vocabulary())
    for text in TEXTS:
        assert [*ours.ids(text), ours.end] == theirs(text)["input_ids"], text
    assert (ours.end, ours.pad) == (theirs.eos_token_id, theirs.pad_token_id) == (1, 0)


@given(st.text(st.characters()))
def test_any_text_has_tokens(folder: Path, text: str):
    assert all(token >= 0 for token in T5Tokenizer(folder).ids(text))


def write_sentencepiece(folder: Path) -> list[tuple[str, float]]:
    """A vocabulary as T5's own file has it; its pieces."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    said, made = ["the blue cat and the dog", "a dog and a cat", "blue blue dogs, thecats"], io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(said * 5), model_writer=made, vocab_size=40, model_type="unigram", pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(made.getvalue())
    processor = SentencePieceProcessor(model_proto=made.getvalue())
    return [(processor.id_to_piece(at), processor.get_score(at)) for at in range(processor.get_piece_size())]


def test_sentencepieces_own_file_gives_the_same_tokens(tmp_path: Path):
    theirs = reference(write_sentencepiece(tmp_path))
    ours = T5Tokenizer(tmp_path)
    for text in ("the blue cat", "  dogs,\nand the\tcat ", "", "a"):
        assert [*ours.ids(text), ours.end] == theirs(text)["input_ids"], text
    assert (ours.end, ours.pad) == (1, 0)


def test_broken_tokenizers_are_refused(tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer cannot be read"):
        T5Tokenizer(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "spiece.model").write_bytes(b"\x01 no model")
    with pytest.raises(ModelError, match="tokenizer cannot be read"):
        T5Tokenizer(tmp_path / "other")


def test_another_kind_of_vocabulary_is_refused(tmp_path: Path):
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram

    Tokenizer(Unigram([("<pad>", 0.0), ("a", -1.0)], 0)).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelError, match="no token '</s>'"):
        T5Tokenizer(tmp_path)


def test_each_vocabulary_is_found_beside_the_other(tmp_path: Path):
    folders = Folders.below(tmp_path)
    tokenizers, model = folders.models("tokenizers"), folders.models("text_encoders") / "t5xxl.safetensors"
    tiny_models.write_tokenizer(tokenizers / "z")
    t5_models.write_tokenizer(tokenizers / "a")
    assert find_tokenizer(model, folders, "T5").path == tokenizers / "a"
    assert find_tokenizer(model, folders).path == tokenizers / "z"
    write_sentencepiece(model.parent)
    assert find_tokenizer(model, folders, "T5").path == model.parent
    part = folders.models("text_encoders") / "own" / "text_encoder_3"
    t5_models.write_tokenizer(part.parent / "tokenizer_3")
    assert find_tokenizer(part, folders, "T5").path == part.parent / "tokenizer_3"


def test_a_vocabulary_that_is_missing_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    home = Folders.below(tmp_path).models("tokenizers") / "t5"
    with pytest.raises(ModelError, match="spiece.model is missing") as refused:
        find_tokenizer(tmp_path / "t5xxl.safetensors", Folders.below(tmp_path), "T5")
    assert f"hf download google/t5-v1_1-xxl spiece.model --local-dir {home}" in str(refused.value)


def test_a_vocabulary_in_the_hubs_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept = tmp_path / "cache" / "models--google--t5-v1_1-xxl"
    write_sentencepiece(kept / "snapshots" / "0")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    found = find_tokenizer(tmp_path / "t5xxl.safetensors", Folders.below(tmp_path), "T5")
    assert load_t5_tokenizer(found).end == 1
