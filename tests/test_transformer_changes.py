"""What changes the weights of diffusion transformers: mixtures, LoRAs in every naming, and saving what comes of it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from graph.folders import Folders
from nodes import block_merging, merging
from nodes.checkpoints import load_unet, load_vae
from nodes.documents import Documents
from nodes.lora_saving import save_lora
from nodes.loras import load_lora_for_model
from nodes.model_errors import ModelError
from nodes.model_saving import save_model, save_vae
from nodes.models import ModelPool
from nodes.values import Model
from nodes.weight_files import read_header
from tests import original_layouts as layouts
from tests import small_transformers
from tests.adapter_files import Tensors, change, lora, named, noise, write
from tests.small_transformers import SMALL

POOL = ModelPool("fp32", "cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Two files of each family, and the second as a folder too."""
    data = tmp_path_factory.mktemp("data")
    models = data / "models" / "diffusion_models"
    for name, small in SMALL.items():
        small_transformers.write_network(models / f"{name}.safetensors", small.network)
        small_transformers.write_network(models / f"{name} 2.safetensors", small.network, seed=1)
        small_transformers.write_network_folder(models / f"{name} folder", small.network)
    return Folders.below(data, data / "models")


def load(folders: Folders, name: str) -> Model:
    return load_unet(unet_name=name, folders=folders)


def weights(model: Model) -> dict[str, Tensor]:
    return POOL.unet(model).state_dict()


def near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


@pytest.mark.parametrize("name", SMALL)
def test_a_mixture_of_both_layouts_is_that_of_all_weights(name: str, folders: Folders):
    first, second = load(folders, f"{name} folder"), load(folders, f"{name} 2.safetensors")
    mixed = merging.merge_models(first, second, 0.25)
    own, others = weights(first), weights(second)
    near(weights(mixed), {each: 0.25 * own[each] + 0.75 * others[each] for each in own})


def test_blocks_are_mixed_by_their_names_in_the_original_layout(folders: Folders):
    first, second = (load(folders, f"SD 3{end}.safetensors") for end in ("", " 2"))
    own, others = weights(first), weights(second)
    mixed = weights(block_merging.merge_sd3(first, second, **{"joint_blocks.1.": 0.0, "pos_embed.": 1.0}))
    assert {each for each in own if torch.equal(mixed[each], others[each])} == {
        each for each in own if each.startswith("transformer_blocks.1.")
    }
    first, second = (load(folders, f"Flux dev{end}.safetensors") for end in ("", " 2"))
    own, others = weights(first), weights(second)
    mixed = weights(block_merging.merge_flux(first, second, **{"single_blocks.0.": 0.0, "guidance_in": 0.0}))
    assert {each for each in own if torch.equal(mixed[each], others[each])} == {
        each for each in own if each.startswith(("single_transformer_blocks.0.", "time_text_embed.guidance_embedder."))
    }


def test_networks_of_other_families_and_sizes_are_not_mixed(folders: Folders):
    for other in ("Flux dev.safetensors", "SD 3.5.safetensors"):
        with pytest.raises(merging.UnlikeNetworks, match="'SD 3.safetensors' \\(SD 3\\) and .* cannot be mixed"):
            merging.merge_models(load(folders, "SD 3.safetensors"), load(folders, other), 0.5)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("end", [".safetensors", " folder"])
def test_a_network_is_saved_in_the_original_layout(name: str, end: str, folders: Folders):
    model = load(folders, f"{name}{end}")
    (path,) = save_model(model, "diffusion_models/saved", folders, Documents()).paths
    wanted = small_transformers.network_weights(SMALL[name].network)
    assert {each.removeprefix("model.diffusion_model.") for each in read_header(path)} == wanted.keys()
    saved = load(folders, path.name)
    same = weights(saved)
    assert all(torch.equal(tensor, same[each]) for each, tensor in weights(model).items())
    assert replace(saved, weights=model.weights) == model


def test_an_autoencoder_of_sixteen_channels_is_saved_as_it_is(folders: Folders):
    layouts.write_weights(folders.models("vae") / "vae.safetensors", small_transformers.vae_weights())
    vae = load_vae("vae.safetensors", folders)
    (path,) = save_vae(vae, "vae/saved", folders, Documents()).paths
    assert read_header(path).keys() == small_transformers.vae_weights().keys()
    saved, own = (POOL.vae(each).state_dict() for each in (load_vae(path.name, folders), vae))
    assert saved.keys() == own.keys() and all(torch.equal(saved[each], own[each]) for each in own)


def with_lora(folders: Folders, model: Model, tensors: Tensors, strength: float = 0.5) -> dict[str, Tensor]:
    write(folders.models("loras") / "own.safetensors", tensors)
    return weights(load_lora_for_model(model, "own.safetensors", strength, folders))


ALONE = {
    "SD 3": ("transformer_blocks.1.ff.net.2", "joint_blocks.1.x_block.mlp.fc2"),
    "Flux dev": ("single_transformer_blocks.1.proj_out", "single_blocks.1.linear2"),
}
"""A module of each family by diffusers' name and by its original one."""
TOGETHER = {
    "SD 3": (
        "joint_blocks.1.context_block.attn.qkv",
        "transformer_blocks.1.attn.",
        ("add_q_proj", "add_k_proj", "add_v_proj"),
    ),
    "Flux dev": (
        "single_blocks.1.linear1",
        "single_transformer_blocks.1.",
        ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    ),
}
"""One weight of each family in the original layout, which is several by diffusers' names."""


@pytest.mark.parametrize("name", ALONE)
def test_every_naming_of_a_lora_is_the_same_change(name: str, folders: Folders):
    model = load(folders, f"{name}.safetensors")
    ours, original = ALONE[name]
    before = weights(model)
    parts = lora(before[f"{ours}.weight"])
    expected = before | {f"{ours}.weight": before[f"{ours}.weight"] + 0.5 * change(parts)}
    peft = {"lora_B.weight": parts["lora_up.weight"], "lora_A.weight": parts["lora_down.weight"]}
    bases = f"transformer.{ours}", f"diffusion_model.{original}", f"base_model.model.{ours}"
    files = [named(base, peft) for base in bases]
    files += [named(f"lora_unet_{each.replace('.', '_')}", parts) for each in (ours, original)]
    files += [named(f"lora_transformer_{ours.replace('.', '_')}", parts)]
    for file in files:
        near(with_lora(folders, model, file), expected)


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("kind", ["lora", "loha", "bias"])
def test_a_lora_for_several_weights_in_one_is_taken_apart(name: str, kind: str, folders: Folders):
    model = load(folders, f"{name}.safetensors")
    original, start, modules = TOGETHER[name]
    before = weights(model)
    names = [f"{start}{module}.{'bias' if kind == 'bias' else 'weight'}" for module in modules]
    whole = torch.cat([before[each] for each in names])
    if kind == "lora":
        parts = lora(whole)
        added = change(parts)
    elif kind == "loha":
        parts = {f"hada_w{at}_a": noise(len(whole), 2, seed=at) for at in (1, 2)}
        parts |= {f"hada_w{at}_b": noise(2, whole.shape[1], seed=at + 2) for at in (1, 2)}
        added = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    else:
        parts = {"diff_b": noise(len(whole), seed=5)}
        added = parts["diff_b"]
    file = named(f"lora_unet_{original.replace('.', '_')}", parts)
    rows = zip(names, (whole + 0.5 * added).split([len(before[each]) for each in names]), strict=True)  # pyright: ignore
    near(with_lora(folders, model, file), before | dict(rows))


def test_the_last_scales_and_shifts_are_changed_in_their_own_order(folders: Folders):
    model = load(folders, "Flux dev.safetensors")
    before = weights(model)
    parts = lora(before["norm_out.linear.weight"])
    shift, scale = change(parts).chunk(2)
    after = with_lora(folders, model, named("lora_unet_final_layer_adaLN_modulation_1", parts))
    torch.testing.assert_close(
        after["norm_out.linear.weight"], before["norm_out.linear.weight"] + 0.5 * torch.cat([scale, shift])
    )


def test_what_cannot_be_taken_apart_is_refused(folders: Folders):
    parts = lora(torch.zeros(7 * 64, 64)) | {"dora_scale": torch.ones(7 * 64, 1)}
    with pytest.raises(ModelError, match=r"its change to single_blocks.0.linear1.weight cannot be taken apart"):
        with_lora(folders, load(folders, "Flux dev.safetensors"), named("lora_unet_single_blocks_0_linear1", parts))


def test_a_lora_for_another_family_is_refused_with_both_names(folders: Folders):
    foreign = {
        "Flux dev": named("lora_unet_joint_blocks_0_x_block_mlp_fc1", lora(torch.zeros(8, 8))),
        "SD 3": named("transformer.single_transformer_blocks.0.attn.to_q", lora(torch.zeros(8, 8))),
    }
    for name, file in foreign.items():
        family, other = ("Flux", "SD 3") if name == "Flux dev" else ("SD 3", "Flux")
        with pytest.raises(
            ModelError, match=rf"an {other} LoRA, which does not fit the transformer of .* \({family}\)"
        ):
            with_lora(folders, load(folders, f"{name}.safetensors"), file)
    unet = named("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", lora(torch.zeros(8, 768)))
    with pytest.raises(ModelError, match=r"an SD 1 LoRA, which does not fit the transformer of .* \(Flux\)"):
        with_lora(folders, load(folders, "Flux dev.safetensors"), unet)


@pytest.mark.parametrize("name", ["SD 3", "Flux dev"])
def test_a_difference_is_saved_as_a_lora_and_added_again(name: str, folders: Folders):
    first, second = (load(folders, f"{name}{end}.safetensors") for end in ("", " 2"))
    difference = merging.subtract_models(second, first)
    saved = save_lora(
        "loras/difference", lora_type="full_diff", model_diff=difference, folders=folders, documents=Documents()
    )
    after = weights(load_lora_for_model(first, saved.paths[0].name, 1.0, folders))
    # Positions are no weight of a module.
    near(after, weights(second) | {each: after[each] for each in after if each == "pos_embed.pos_embed"})
