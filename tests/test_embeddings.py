"""Textual inversion: `embedding:name` in a prompt stands for the vectors of a file."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.folders import Folders
from nodes.checkpoints import load_checkpoint
from nodes.embeddings import find
from nodes.engine import Engine, built_in
from nodes.model_errors import ModelError
from nodes.models import ModelPool
from nodes.primitives import primitive_string
from nodes.text import encode_text
from nodes.text_encoding import encode_prompt
from nodes.values import Clip
from tests import small_models, tiny_models
from tests.adapter_files import noise, write
from tests.small_models import SMALL

WIDTH = 64


class World(NamedTuple):
    folders: Folders
    pool: ModelPool

    def clip(self, family: str = "SD 1") -> Clip:
        path = self.folders.models("checkpoints") / f"{family}.safetensors"
        if not path.exists():
            small_models.write_file(path, SMALL[family], self.folders.models("tokenizers") / "clip")
        return load_checkpoint(path.name, self.folders)[1]

    def write(self, name: str, **vectors: Tensor) -> Path:
        return write(self.folders.models("embeddings") / f"{name}.safetensors", vectors)

    def states(self, text: str, family: str = "SD 1") -> Tensor:
        return encode_prompt(self.pool, self.clip(family), text, folders=self.folders).prompts[0].tokens

    def of_words(self, *words: str) -> Tensor:
        """The vectors that the text encoder has for words, each of which is one token."""
        table = self.pool.text_encoder(self.clip()).get_parameter("embeddings.token_embedding.weight")
        ids = [self.pool.tokenizer(self.clip()).ids(word) for word in words]
        assert all(len(each) == 1 for each in ids)
        return torch.stack([table[each[0]] for each in ids])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("data")
    tiny_models.write_tokenizer(folder / "models" / "tokenizers" / "clip")
    return World(Folders.below(folder), ModelPool("fp32"))


def test_the_vectors_of_words_are_those_words(world: World):
    world.write("pets", emb_params=world.of_words("cat", "dog"))
    expected = world.states("the cat dog blue")
    assert torch.equal(world.states("the embedding:pets blue"), expected)
    assert torch.equal(world.states("embedding:pets"), world.states("cat dog"))


def test_a_comma_after_a_name_is_text_and_a_weight_holds_for_all_vectors(world: World):
    world.write("pets", emb_params=world.of_words("cat", "dog"))
    assert torch.equal(world.states("the embedding:pets, blue"), world.states("the cat dog, blue"))
    assert torch.equal(world.states("the (embedding:pets:1.4) blue"), world.states("the (cat dog:1.4) blue"))


def test_a_vector_may_be_alone_under_any_name_as_in_diffusers(world: World):
    write(world.folders.models("embeddings") / "own.safetensors", {"<own>": world.of_words("dog")[0]})
    assert torch.equal(world.states("the embedding:own and embedding:own"), world.states("the dog and dog"))


def test_each_of_sdxls_encoders_takes_its_own(world: World):
    first, second = noise(2, WIDTH, seed=1), noise(2, WIDTH, seed=2)
    world.write("both", clip_l=first, clip_g=second)
    world.write("swapped", clip_l=second, clip_g=first)
    both, swapped = (world.states(f"a embedding:{name}", "SDXL") for name in ("both", "swapped"))
    world.write("left", clip_l=first, clip_g=first.clone())
    left = world.states("a embedding:left", "SDXL")
    assert torch.equal(left[..., :WIDTH], both[..., :WIDTH]) and not torch.equal(left, both)
    assert torch.equal(left[..., WIDTH:], swapped[..., WIDTH:]) and not torch.equal(left, swapped)


def test_many_vectors_go_on_in_the_next_chunk(world: World):
    world.write("long", emb_params=noise(100, WIDTH, seed=3))
    assert world.states("embedding:long").shape == (1, 2 * 77, WIDTH)


def test_an_unknown_name_is_ignored_with_the_nearest_one(world: World, caplog: pytest.LogCaptureFixture):
    world.write("pets", emb_params=noise(1, WIDTH, seed=1))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(world.states("the embedding:petz blue"), world.states("the blue"))
    assert "embedding:petz is ignored" in caplog.text and "did you mean 'pets'?" in caplog.text


def test_vectors_of_another_width_are_ignored_and_both_widths_said(world: World, caplog: pytest.LogCaptureFixture):
    world.write("wide", emb_params=noise(2, 768, seed=1))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(world.states("the embedding:wide blue"), world.states("the blue"))
    assert "wide.safetensors is ignored by a text encoder of width 64: its vectors are [2, 768]" in caplog.text


def test_a_pickle_is_refused(world: World):
    (world.folders.models("embeddings") / "old.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="this is a pickle"):
        world.states("embedding:old")


def found(folders: Folders, name: str) -> str | None:
    hit = find(folders, name)
    return hit and hit.path.relative_to(folders.models("embeddings")).as_posix()


def test_names_are_looked_for_in_an_order_that_is_always_the_same(tmp_path: Path):
    folders = Folders.below(tmp_path)
    for name in (
        "a.pt",
        "b/a.safetensors",
        "b/c.safetensors",
        "a/x/c.safetensors",
        "d.safetensors",
        "b/d.safetensors",
        "e,.pt",
    ):
        path = folders.models("embeddings") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    wanted = {"a": "a.pt", "c": "b/c.safetensors", "x/c": "a/x/c.safetensors", "b/d": "b/d.safetensors"}
    wanted |= {"d": "d.safetensors", "d,": "d.safetensors", "e,": "e,.pt", "a.safetensors": "b/a.safetensors"}
    assert {name: found(folders, name) for name in wanted} == wanted


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "b/../../secret", "", ",", "..", "\x00", "C:\\a"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str):
    folders = Folders.below(tmp_path)
    write(folders.models("embeddings") / "b" / "c.safetensors", {"a": torch.zeros(1, 4)})
    write(folders.models("embeddings").parent / "secret.safetensors", {"a": torch.zeros(1, 4)})
    assert found(folders, name) is None


@pytest.mark.parametrize("linked", [False, True])
def test_a_changed_file_is_read_again(world: World, linked: bool):
    world.write("pets", emb_params=world.of_words("cat"))
    world.clip()
    engine = Engine(world.folders, catalogue=built_in(), precision="fp32")

    def states() -> Tensor:
        with WorkflowBuilder() as workflow:
            _, clip, _ = load_checkpoint(ckpt_name="SD 1.safetensors")
            text: Any = primitive_string(value="embedding:pets") if linked else "embedding:pets"
            encoded: Any = encode_text(text=text, clip=clip)
        output: Any = engine.run(workflow, targets=[encoded.step]).checked().outputs[encoded.step][0]
        return output.prompts[0].tokens

    first = states()
    assert states() is first
    world.write("pets", emb_params=world.of_words("dog"))
    assert torch.equal(states(), world.states("dog")) and torch.equal(first, world.states("cat"))
