from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nodes.clip_tokenizer import ClipTokenizer
from nodes.model_errors import ModelError
from nodes.model_folders import read_checkpoint
from nodes.models import ModelPool
from nodes.prompt_chunks import CHUNK, LARGE, chunks, pack
from nodes.text_encoding import encode_prompt, weigh
from nodes.values import Clip
from tests import tiny_models

REAL = Path(__file__).parents[2] / "shared" / "data" / "clip_tokenizer"
TEXTS = (
    "a photo of a cat",
    "The blue  DOG's\n\thouse, and 1234 cats!!!",
    "Größe, naïve façade, 猫と犬, 🙂👍🏽, Ω≈ç√",
    "<|endoftext|> in <|startoftext|>the middle",
    "",
    "  ",
    "\x00\x7f\u200b…",
    "it's we'll I'd they've don't 're",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_checkpoint(tmp_path_factory.mktemp("made") / "tiny")


@pytest.fixture(scope="module")
def clip(made: Path) -> Clip:
    return read_checkpoint(made, "tiny")[1]


@pytest.fixture(scope="module")
def pool() -> ModelPool:
    return ModelPool(precision="fp32", device="cpu")


def reference(folder: Path) -> Any:
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    return cast(Any, CLIPTokenizer).from_pretrained(folder, local_files_only=True)


def same_as_transformers(folder: Path) -> None:
    ours, theirs = ClipTokenizer(folder), reference(folder)
    for text in TEXTS:
        assert [ours.start, *ours.ids(text), ours.end] == theirs(text)["input_ids"], text
    assert (ours.start, ours.end, ours.pad) == (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)


def test_tokens_are_those_of_transformers(made: Path) -> None:
    same_as_transformers(made / "tokenizer")


@pytest.mark.skipif(not REAL.is_dir(), reason="CLIP's own vocabulary is not here")
def test_tokens_of_the_real_vocabulary_are_those_of_transformers() -> None:
    same_as_transformers(REAL)
    assert ClipTokenizer(REAL).ids("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert ClipTokenizer(REAL).pad == 49407


def test_a_tokenizer_saved_as_one_file_gives_the_same_tokens(made: Path, tmp_path: Path) -> None:
    reference(made / "tokenizer").save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    for text in TEXTS:
        assert ClipTokenizer(tmp_path).ids(text) == ClipTokenizer(made / "tokenizer").ids(text)


def test_broken_tokenizers_are_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer cannot be read"):
        ClipTokenizer(tmp_path)
    tiny_models.write_tokenizer(tmp_path / "own")
    tiny_models.write_json(tmp_path / "own" / "special_tokens_map.json", {"pad_token": {"content": "<none>"}})
    (tmp_path / "own" / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="no token '<none>'"):
        ClipTokenizer(tmp_path / "own")


@given(st.text(st.characters()))
def test_any_text_has_tokens(made: Path, text: str) -> None:
    assert all(isinstance(token, int) for token in ClipTokenizer(made / "tokenizer").ids(text))


def test_half_a_surrogate_pair_is_no_crash(made: Path) -> None:
    assert ClipTokenizer(made / "tokenizer").ids("a \ud800 cat")


def plan(*stretches: int) -> list[list[int]]:
    """The chunks of stretches of that many tokens; stretch n has tokens n + 1; 0 starts, 98 ends, 99 pads."""
    tokens = [([number] * count, 1.0) for number, count in enumerate(stretches, 1)]
    return [chunk.ids for chunk in pack(tokens, 0, 98, 99)]


def test_a_short_prompt_is_framed_and_padded() -> None:
    assert plan(2) == [[0, 1, 1, 98, *[99] * 73]]
    assert plan() == [[0, 98, *[99] * 75]]


def test_a_full_chunk_needs_no_second() -> None:
    assert plan(75) == [[0, *[1] * 75, 98]]
    assert plan(76) == [[0, *[1] * 75, 98], [0, 1, 98, *[99] * 74]]


def test_a_short_stretch_moves_whole_and_a_long_one_is_cut() -> None:
    assert plan(70, LARGE - 1) == [[0, *[1] * 70, 98, *[99] * 5], [0, *[2] * 7, 98, *[99] * 68]]
    assert plan(70, LARGE) == [[0, *[1] * 70, *[2] * 5, 98], [0, *[2] * 3, 98, *[99] * 72]]


@given(st.lists(st.integers(0, 200)))
def test_no_token_is_lost_or_moved(counts: Sequence[int]) -> None:
    found = plan(*counts)
    assert all(len(ids) == CHUNK for ids in found)
    kept = [token for token in chain(*found) if token not in (0, 98, 99)]
    assert kept == [
        token for token in chain(*([n] * count for n, count in enumerate(counts, 1))) if token not in (98, 99)
    ]


def test_weights_go_with_their_tokens(made: Path) -> None:
    (chunk,) = chunks(ClipTokenizer(made / "tokenizer"), "the (cat:1.5) and")
    assert chunk.weights[:5] == [1.0, 1.0, 1.5, 1.0, 1.0] and set(chunk.weights[5:]) == {1.0}


def test_a_prompt_is_what_transformers_makes_of_it(made: Path, clip: Clip, pool: ModelPool) -> None:
    from transformers.models.clip.modeling_clip import CLIPTextModel

    ids = reference(made / "tokenizer")("the blue dog", padding="max_length", return_tensors="pt")["input_ids"]
    theirs = cast(Any, CLIPTextModel).from_pretrained(made / "text_encoder", local_files_only=True).eval()
    with torch.no_grad():
        expected = theirs(input_ids=ids)
    (prompt,) = encode_prompt(pool, clip, "the blue dog").prompts
    torch.testing.assert_close(prompt.tokens, expected.last_hidden_state)
    torch.testing.assert_close(prompt.pooled, expected.pooler_output)


def test_weights_move_states_away_from_the_empty_prompts(clip: Clip, pool: ModelPool) -> None:
    plain, heavy, empty = (encode_prompt(pool, clip, text).prompts[0] for text in ("the cat", "the (cat:2.5)", ""))
    expected = plain.tokens.clone()
    expected[0, 2] = (plain.tokens[0, 2] - empty.tokens[0, 2]) * 2.5 + empty.tokens[0, 2]
    torch.testing.assert_close(heavy.tokens, expected)
    assert plain.pooled is not None and heavy.pooled is not None
    torch.testing.assert_close(heavy.pooled, plain.pooled)


def test_weights_of_one_change_nothing() -> None:
    states = torch.randn(2, 3, 4)
    assert torch.equal(weigh(states, torch.full((3, 4), torch.inf), torch.ones(2, 3)), states)


def test_a_long_prompt_is_chunk_after_chunk(clip: Clip, pool: ModelPool) -> None:
    long = "cat " * 80
    (prompt,) = encode_prompt(pool, clip, long).prompts
    (first,) = encode_prompt(pool, clip, "cat " * 75).prompts
    (second,) = encode_prompt(pool, clip, "cat " * 5).prompts
    torch.testing.assert_close(prompt.tokens, torch.cat([first.tokens, second.tokens], dim=1))
    assert prompt.pooled is not None and first.pooled is not None
    torch.testing.assert_close(prompt.pooled, first.pooled)
