"""Whole models, and what changes them, from pickles: the same networks as from safetensors, to the last bit."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from graph.folders import Folders
from nodes import pickles
from nodes.checkpoints import load_checkpoint, load_vae
from nodes.loras import load_lora_for_model
from nodes.model_errors import ModelError
from nodes.models import ModelPool
from nodes.open_weights import OpenWeights
from nodes.safetensors_header import read_header
from nodes.text_encoding import encode_prompt
from tests import small_models, tiny_models
from tests.adapter_files import lora, named, noise, write
from tests.commands import latentloom
from tests.pickle_files import permission, pickled
from tests.small_models import SMALL

QUERY = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q"


class World(NamedTuple):
    """The folders, a pool, and the weights of models by their family."""

    folders: Folders
    pool: ModelPool
    weights: dict[str, dict[str, Tensor]]

    def pickled(self, name: str, content: object) -> Path:
        return pickled(self.folders.models(name), content)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Every family as a safetensors file, and the same weights as a training program leaves them."""
    folders = Folders.below(tmp_path_factory.mktemp("data"))
    tokenizer = folders.models("tokenizers") / "clip"
    tiny_models.write_tokenizer(tokenizer)
    made = World(folders, ModelPool("fp32"), {})
    for family in ("SD 1", "SD 2", "SDXL"):
        path = folders.models("checkpoints") / f"{family}.safetensors"
        weights = made.weights[family] = small_models.write_file(path, SMALL[family], tokenizer)
        made.pickled(f"checkpoints/{family}.ckpt", {"state_dict": weights, "global_step": 470_000})
    with permission():
        yield made


def assert_same(module: torch.nn.Module, other: torch.nn.Module) -> None:
    weights = other.state_dict()
    assert weights and module is not other
    assert all(torch.equal(tensor, weights[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("family", ["SD 1", "SD 2", "SDXL"])
def test_a_checkpoint_is_that_of_the_safetensors_file(world: World, family: str):
    old, new = (load_checkpoint(f"{family}{end}", world.folders) for end in (".ckpt", ".safetensors"))
    assert old.MODEL.told == new.MODEL.told and old.MODEL.prediction == new.MODEL.prediction
    assert_same(world.pool.unet(old.MODEL), world.pool.unet(new.MODEL))
    assert_same(world.pool.vae(old.VAE), world.pool.vae(new.VAE))
    states = [encode_prompt(world.pool, each.CLIP, "a blue cat").prompts[0].tokens for each in (old, new)]
    assert torch.equal(*states)


def test_a_changed_pickle_is_another_model(world: World):
    path = world.pickled("checkpoints/changing.ckpt", world.weights["SD 1"])
    before, again = (load_checkpoint("changing.ckpt", world.folders).MODEL for _ in range(2))
    assert before == again
    pickled(path, {name: tensor * 2 for name, tensor in world.weights["SD 1"].items()})
    assert load_checkpoint("changing.ckpt", world.folders).MODEL.weights.identity != before.weights.identity


def test_a_vae_a_lora_and_words_are_those_of_safetensors_files(world: World):
    whole = load_checkpoint("SD 1.safetensors", world.folders)
    start = "first_stage_model."
    vae = {name.removeprefix(start): each for name, each in world.weights["SD 1"].items() if name.startswith(start)}
    world.pickled("vae/old.pt", {"state_dict": vae})
    assert_same(world.pool.vae(load_vae("old.pt", world.folders)), world.pool.vae(whole.VAE))

    change = named(QUERY, lora(torch.zeros(64, 64)))
    world.pickled("loras/old.pt", change)
    write(world.folders.models("loras") / "new.safetensors", change)
    models = [load_lora_for_model(whole.MODEL, name, 0.7, world.folders) for name in ("old.pt", "new.safetensors")]
    assert_same(*(world.pool.unet(model) for model in models))

    words = noise(2, 64, seed=5)
    world.pickled("embeddings/old.pt", {"string_to_token": {"*": 265}, "string_to_param": {"*": words}, "step": 100})
    write(world.folders.models("embeddings") / "new.safetensors", {"emb_params": words})
    states = [
        encode_prompt(world.pool, whole.CLIP, f"a embedding:{name} cat", folders=world.folders).prompts[0].tokens
        for name in ("old", "new")
    ]
    assert torch.equal(*states)


def test_a_folder_of_pickles_is_read_where_there_are_no_safetensors(world: World):
    folder = world.folders.models("checkpoints") / "folder"
    small_models.write_folder(folder, SMALL["SD 1"], world.weights["SD 1"])
    old = shutil.copytree(folder, folder.with_name("old folder"))
    for file in sorted(old.rglob("*.safetensors")):
        name = "pytorch_model.bin" if file.name == "model.safetensors" else f"{file.stem}.bin"
        weights = {each: OpenWeights().tensor(file, each) for each in read_header(file)}
        pickled(file.with_name(name), weights)
        file.unlink()
    ours, theirs = (load_checkpoint(each.name, world.folders) for each in (old, folder))
    assert_same(world.pool.unet(ours.MODEL), world.pool.unet(theirs.MODEL))
    assert_same(world.pool.text_encoder(ours.CLIP), world.pool.text_encoder(theirs.CLIP))


def test_a_reference_from_a_run_that_was_allowed_to_is_not_read_by_one_that_is_not(world: World):
    world.pickled("checkpoints/kept.ckpt", world.weights["SD 1"] | {"model_ema.decay": torch.ones(())})
    model = load_checkpoint("kept.ckpt", world.folders).MODEL
    pickles.allow(False)
    try:
        with pytest.raises(ModelError, match="this is a pickle"):
            world.pool.unet(model)
    finally:
        pickles.allow()


def test_commands_read_pickles_when_told_to_and_teach_it_when_not(world: World, tmp_path: Path):
    path = pickled(tmp_path / "models" / "checkpoints" / "old.ckpt", {"state_dict": world.weights["SD 1"]})
    pickles.allow(False)
    try:
        refused = latentloom("models", "inspect", path, data=tmp_path)
        assert (refused.code, refused.out) == (2, "") and "--allow-pickle" in refused.err
        assert "old.ckpt" not in latentloom("models", data=tmp_path).out
        assert "  old.ckpt" in latentloom("models", "--allow-pickle", data=tmp_path).out.splitlines()
        said = latentloom("models", "inspect", path, "--allow-pickle", data=tmp_path)
        assert said.code == 0 and said.out.startswith("old.ckpt: SD 1 checkpoint (original layout)")
        made = latentloom("models", "convert", path, "--allow-pickle", data=tmp_path)
        new = path.with_suffix(".safetensors")
        assert made.code == 0 and str(new) in made.out
        assert {name: each.shape for name, each in read_header(new).items()} == {
            name: tuple(each.shape) for name, each in world.weights["SD 1"].items()
        }
        again = latentloom("models", "convert", path, "--allow-pickle", data=tmp_path)
        assert again.code == 2 and "there is such a file already" in again.err
        assert not pickles.allowed()
    finally:
        pickles.allow()
