"""Mixtures of networks: each node against its formula, block by block, with patches, over formats, and undone."""

import pytest
import torch
from torch import Tensor

from graph.folders import Folders
from nodes import block_merging, merging
from nodes.checkpoints import load_checkpoint
from nodes.loras import load_lora_for_model
from nodes.models import ModelPool
from nodes.unet_layout import structure_of_diffusers, unet_names
from nodes.values import Clip, Model
from tests import original_layouts as layouts
from tests import small_models, tiny_models
from tests.adapter_files import change, lora, named, write
from tests.small_models import SMALL

QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Two checkpoints of one family, `first` and `second`, the latter as a folder too; and one of another family."""
    folder = tmp_path_factory.mktemp("data")
    tokenizer = folder / "models" / "tokenizers" / "clip"
    tiny_models.write_tokenizer(tokenizer)
    checkpoints, words = folder / "models" / "checkpoints", small_models.words_in(tokenizer)
    for seed, name in enumerate(("first", "second")):
        weights = layouts.random_weights(small_models.shapes_of(SMALL["SD 1"], words), seed)
        layouts.write_weights(checkpoints / f"{name}.safetensors", weights)
        if name == "second":
            small_models.write_folder(checkpoints / name, SMALL["SD 1"], weights)
    for name in ("SD 2", "inpainting"):
        small_models.write_file(checkpoints / f"{name}.safetensors", SMALL[name], tokenizer)
    return Folders.below(folder)


POOL = ModelPool("fp32")


def unet(model: Model) -> dict[str, Tensor]:
    return POOL.unet(model).state_dict()


def text(clip: Clip) -> dict[str, Tensor]:
    return POOL.text_encoder(clip).state_dict()


def near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


def both(folders: Folders, second: str = "second.safetensors") -> tuple[Model, Model, Clip, Clip]:
    (model1, clip1, _), (model2, clip2, _) = (load_checkpoint(name, folders) for name in ("first.safetensors", second))
    return model1, model2, clip1, clip2


@pytest.mark.parametrize("second", ["second.safetensors", "second"])
def test_a_mixture_is_weighted_by_its_ratio(folders: Folders, second: str):
    model1, model2, clip1, clip2 = both(folders, second)
    one, two = unet(model1), unet(model2)
    near(unet(merging.merge_models(model1, model2, 0.3)), {name: 0.3 * one[name] + 0.7 * two[name] for name in one})
    one, two = text(clip1), text(clip2)
    near(text(merging.merge_clips(clip1, clip2, 0.3)), {name: 0.3 * one[name] + 0.7 * two[name] for name in one})


def test_differences_are_added_to_a_third(folders: Folders):
    model1, model2, clip1, clip2 = both(folders)
    one, two = unet(model1), unet(model2)
    difference = merging.subtract_models(model1, model2, 0.5)
    near(unet(difference), {name: 0.5 * (one[name] - two[name]) for name in one})
    summed = merging.add_models(model2, difference)
    near(unet(summed), {name: two[name] + 0.5 * (one[name] - two[name]) for name in one})
    one, two = text(clip1), text(clip2)
    summed = merging.add_clips(clip2, merging.subtract_clips(clip1, clip2, 2.0))
    near(text(summed), {name: two[name] + 2.0 * (one[name] - two[name]) for name in one})


def test_blocks_have_ratios_of_their_own_by_their_names_in_the_original_layout(folders: Folders):
    model1, model2, *_ = both(folders)
    one, two = unet(model1), unet(model2)
    table = unet_names(structure_of_diffusers({name: tuple(tensor.shape) for name, tensor in one.items()}))
    ratios = {"input_blocks": 0.2, "time_embed": 0.2, "middle_block": 0.5, "output_blocks": 0.9, "out": 0.9}
    expected = {name: ratios[table.original(name).split(".")[0]] for name in one}
    assert set(expected.values()) == {0.2, 0.5, 0.9}
    merged = merging.merge_blocks(model1, model2, 0.2, 0.5, 0.9)
    near(unet(merged), {name: ratio * one[name] + (1 - ratio) * two[name] for name, ratio in expected.items()})


def test_patches_of_both_are_in_the_mixture(folders: Folders):
    model1, model2, *_ = both(folders)
    one, two = unet(model1)[f"{QUERY}.weight"], unet(model2)[f"{QUERY}.weight"]
    first, second, last = (lora(one, seed=seed) for seed in (1, 2, 3))
    for name, parts in {"a": first, "b": second, "c": last}.items():
        write(folders.models("loras") / f"{name}.safetensors", named(f"unet.{QUERY}", parts))
    patched1 = load_lora_for_model(model1, "a.safetensors", 1.0, folders)
    patched2 = load_lora_for_model(model2, "b.safetensors", 0.5, folders)
    merged = load_lora_for_model(merging.merge_models(patched1, patched2, 0.25), "c.safetensors", 2.0, folders)
    expected = 0.25 * (one + change(first)) + 0.75 * (two + 0.5 * change(second)) + 2 * change(last)
    torch.testing.assert_close(unet(merged)[f"{QUERY}.weight"], expected)


def test_a_ratio_of_one_is_the_first_itself(folders: Folders):
    model1, model2, clip1, clip2 = both(folders)
    assert merging.merge_models(model1, model2, 1.0) == model1
    assert merging.merge_blocks(model1, model2, 1.0, 1.0, 1.0) == model1
    assert merging.merge_clips(clip1, clip2, 1.0) == clip1
    assert merging.merge_models(model1, model2, 0.5).weights.identity != model1.weights.identity


def test_an_inpainting_network_keeps_its_own_first_layer(folders: Folders):
    model1, model2, *_ = both(folders, "inpainting.safetensors")
    own = unet(model2)
    merged = unet(merging.add_models(model2, model1))
    assert torch.equal(merged["conv_in.weight"], own["conv_in.weight"])
    torch.testing.assert_close(merged["conv_out.weight"], own["conv_out.weight"] + unet(model1)["conv_out.weight"])


def test_other_families_are_refused_with_both_names(folders: Folders):
    model1, model2, clip1, _ = both(folders, "SD 2.safetensors")
    with pytest.raises(merging.UnlikeNetworks, match=r"'first.safetensors' \(SD 1\) and 'SD 2.safetensors' \(SD 2\)"):
        merging.merge_models(model1, model2, 0.5)
    with pytest.raises(merging.UnlikeNetworks, match=r"\(64 wide\) and .* \(64 wide and 64 wide\)"):
        merging.merge_clips(clip1, Clip(clip1.weights, clip1.tokenizer, further=(clip1,)), 0.5)


def test_every_block_has_a_ratio_of_its_own_by_the_longest_start_of_its_name(folders: Folders):
    model1, model2, *_ = both(folders)
    one, two = unet(model1), unet(model2)
    table = unet_names(structure_of_diffusers({name: tuple(tensor.shape) for name, tensor in one.items()}))
    names = block_merging.SD_BLOCKS.names
    ratios = {name: (at + 1) / 40 for at, name in enumerate(names)}
    expected = {name: next(r for start, r in ratios.items() if table.original(name).startswith(start)) for name in one}
    assert len(set(expected.values())) > 8
    merged = block_merging.merge_sd1(model1, model2, **ratios)
    near(unet(merged), {name: ratio * one[name] + (1 - ratio) * two[name] for name, ratio in expected.items()})
    only = block_merging.merge_sd2(model1, model2, **{"middle_block.1.": 0.0})
    for name, tensor in unet(only).items():
        other = table.original(name).startswith("middle_block.1.")
        torch.testing.assert_close(tensor, two[name] if other else one[name], msg=name)
    assert block_merging.merge_sdxl(model1, model2) == model1


def test_inputs_of_blocks_are_those_of_the_reference():
    first, xl = block_merging.merge_sd1.inputs, block_merging.merge_sdxl.inputs
    assert len(first) == 2 + 2 + 12 + 3 + 12 + 1 and {"time_embed.", "input_blocks.11.", "out."} <= first.keys()
    assert len(xl) == 2 + 2 + 9 + 3 + 9 + 1 and {"label_emb.", "input_blocks.8", "middle_block.2"} <= xl.keys()
