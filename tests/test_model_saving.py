"""Networks that were saved are read again as they were, patches and all."""

from dataclasses import replace

import pytest
import torch
from torch.nn import Module

from graph.folders import Folders
from nodes.checkpoints import load_checkpoint, load_clip, load_unet, load_vae
from nodes.documents import Documents
from nodes.loras import load_lora_for_model
from nodes.model_errors import ModelError
from nodes.model_saving import save_checkpoint, save_clip, save_model, save_vae
from nodes.models import ModelPool
from nodes.safetensors_header import read_whole_header
from tests import small_models, tiny_models
from tests.adapter_files import lora, named, write
from tests.small_models import SMALL

QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
POOL = ModelPool("fp32")
DOCUMENTS = Documents({"1": {"class_type": "ModelSave"}})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """What is saved lands where it is loaded from."""
    folder = tmp_path_factory.mktemp("data")
    tiny_models.write_tokenizer(folder / "models" / "tokenizers" / "clip")
    checkpoints = folder / "models" / "checkpoints"
    for family in ("SD 2", "SDXL"):
        path = checkpoints / f"{family}.safetensors"
        weights = small_models.write_file(path, SMALL[family], folder / "models" / "tokenizers" / "clip")
        small_models.write_folder(checkpoints / family, SMALL[family], weights)
    return Folders.below(folder, folder / "models")


def same(found: Module, expected: Module) -> None:
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("name", ["SD 2.safetensors", "SD 2", "SDXL.safetensors"])
def test_a_model_with_a_lora_is_saved_as_it_is(folders: Folders, name: str):
    model = load_checkpoint(name, folders)[0]
    weight = POOL.unet(model).state_dict()[f"{QUERY}.weight"]
    write(folders.models("loras") / "own.safetensors", named(f"unet.{QUERY}", lora(weight)))
    patched = load_lora_for_model(model, "own.safetensors", 0.7, folders)
    (path,) = save_model(patched, "diffusion_models/own", folders, DOCUMENTS).paths
    loaded = load_unet(path.name, folders=folders)
    same(POOL.unet(loaded), POOL.unet(patched))
    assert (loaded.prediction, loaded.told) == (patched.prediction, patched.told)
    assert read_whole_header(path).metadata["prompt"] == '{"1": {"class_type": "ModelSave"}}'


def test_both_text_encoders_are_saved(folders: Folders):
    clip = load_checkpoint("SDXL.safetensors", folders)[1]
    first, second = save_clip(clip, "text_encoders/own", folders, DOCUMENTS).paths
    assert [path.name for path in (first, second)] == ["own_clip_l_00001_.safetensors", "own_clip_g_00001_.safetensors"]
    for path, encoder in zip((first, second), clip.encoders, strict=True):
        written, expected = tiny_models.load_weights(path), POOL.text_encoder(encoder).state_dict()
        bare = {name.removeprefix("text_model."): tensor for name, tensor in written.items()}
        assert all(torch.equal(bare[name.removeprefix("text_model.")], tensor) for name, tensor in expected.items())
    assert [load_clip(path.name, folders=folders).weights.name for path in (first, second)] == [first.name, second.name]


@pytest.mark.parametrize("name", ["SD 2.safetensors", "SD 2"])
def test_a_vae_is_saved(folders: Folders, name: str):
    vae = load_checkpoint(name, folders)[2]
    (path,) = save_vae(vae, "vae/own", folders, DOCUMENTS).paths
    same(POOL.vae(load_vae(path.name, folders)), POOL.vae(vae))


@pytest.mark.parametrize("name", ["SD 2.safetensors", "SDXL.safetensors", "SDXL"])
def test_a_whole_checkpoint_is_saved(folders: Folders, name: str):
    model, clip, vae = load_checkpoint(name, folders)
    (path,) = save_checkpoint(model, clip, vae, "checkpoints/own", folders, DOCUMENTS).paths
    loaded = load_checkpoint(path.name, folders)
    same(POOL.unet(loaded.MODEL), POOL.unet(model))
    same(POOL.vae(loaded.VAE), POOL.vae(vae))
    same(POOL.text_encoder(loaded.CLIP), POOL.text_encoder(clip))
    for ours, theirs in zip(loaded.CLIP.further, clip.further, strict=True):
        same(POOL.text_encoder(ours), POOL.text_encoder(theirs))
    assert loaded.MODEL.prediction == model.prediction


def test_a_text_encoder_that_lacks_layers_is_not_saved_in_a_checkpoint(folders: Folders):
    model, clip, vae = load_checkpoint("SD 2.safetensors", folders)
    with pytest.raises(ModelError, match="the text encoder lacks layers"):
        save_checkpoint(model, replace(clip, left_out=1), vae, "checkpoints/torn", folders, DOCUMENTS)
    assert not list(folders.models("checkpoints").glob("torn*"))
