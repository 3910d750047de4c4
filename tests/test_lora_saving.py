"""LoRAs made of differences: added to where the difference began, they lead to where it ended."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph.folders import Folders
from nodes.checkpoints import Checkpoint, load_checkpoint
from nodes.documents import Documents
from nodes.lora_saving import save_lora
from nodes.loras import load_lora
from nodes.maths.low_rank import low_rank
from nodes.merging import subtract_clips, subtract_models
from nodes.models import ModelPool
from nodes.safetensors_header import read_header
from nodes.values import Clip, Model
from tests import original_layouts as layouts
from tests import small_models, tiny_models
from tests.adapter_files import lora, named, noise, write
from tests.small_models import SMALL

POOL = ModelPool("fp32")
DOCUMENTS = Documents({})


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (4, 4)])
def test_no_product_of_that_rank_is_nearer(shape: tuple[int, int]):
    matrix = noise(*shape, seed=1)
    for rank in (1, 3, 99):
        up, down = low_rank(matrix, rank)
        u, s, v = cast(Any, torch).linalg.svd(matrix, full_matrices=False)
        torch.testing.assert_close(up @ down, (u[:, :rank] * s[:rank]) @ v[:rank], rtol=1e-4, atol=1e-5)
        assert up.shape[1] == min(rank, *shape) and torch.isclose(up.square().sum(), down.square().sum(), rtol=1e-3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Two checkpoints of each family; what is saved lands where it is loaded from."""
    folder = tmp_path_factory.mktemp("data")
    tokenizer = folder / "models" / "tokenizers" / "clip"
    tiny_models.write_tokenizer(tokenizer)
    for family in ("SD 1", "SDXL"):
        shapes = small_models.shapes_of(SMALL[family], small_models.words_in(tokenizer))
        for seed in (0, 1):
            path = folder / "models" / "checkpoints" / f"{family}{seed}.safetensors"
            layouts.write_weights(path, layouts.random_weights(shapes, seed))
    return Folders.below(folder, folder / "models")


def networks(model: Model, clip: Clip) -> dict[str, Tensor]:
    found = {f"unet {name}": tensor for name, tensor in POOL.unet(model).state_dict().items()}
    for each in clip.encoders:
        found |= {f"{each.projected} {name}": tensor for name, tensor in POOL.text_encoder(each).state_dict().items()}
    # Words stay what they are.
    return {name: tensor for name, tensor in found.items() if "embedding." not in name or "linear" in name}


def saved(folders: Folders, first: Checkpoint, second: Checkpoint, **how: object) -> Path:
    difference = subtract_models(second.MODEL, first.MODEL)
    clips = subtract_clips(second.CLIP, first.CLIP)
    options = {"model_diff": difference, "text_encoder_diff": clips, "folders": folders, "documents": DOCUMENTS, **how}
    (path,) = save_lora.function(filename_prefix="loras/own", **options).paths  # pyright: ignore[reportArgumentType]  # by name
    return path


def added(folders: Folders, checkpoint: Checkpoint, path: Path, strength: float = 1.0) -> dict[str, Tensor]:
    return networks(*load_lora(checkpoint.MODEL, checkpoint.CLIP, path.name, strength, strength, folders))


@pytest.mark.parametrize("family", ["SD 1", "SDXL"])
def test_whole_differences_lead_from_one_model_to_the_other(folders: Folders, family: str):
    first, second = (load_checkpoint(f"{family}{seed}.safetensors", folders) for seed in (0, 1))
    path = saved(folders, first, second, lora_type="full_diff")
    found, expected = added(folders, first, path), networks(second.MODEL, second.CLIP)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_of_a_difference_of_low_rank_nothing_is_lost(folders: Folders):
    first = load_checkpoint("SD 10.safetensors", folders)
    names = ("middle_block_1_transformer_blocks_0_attn1_to_q", "middle_block_0_in_layers_2")
    weights = (torch.zeros(64, 64), torch.zeros(64, 64, 3, 3))
    parts = [named(f"lora_unet_{name}", lora(weight)) for name, weight in zip(names, weights, strict=True)]
    write(folders.models("loras") / "given.safetensors", parts[0] | parts[1])
    model, clip = load_lora(first.MODEL, first.CLIP, "given.safetensors", 0.8, 0.0, folders)
    second = Checkpoint(model, clip, first.VAE)
    path = saved(folders, first, second, rank=2, bias_diff=False, text_encoder_diff=None)
    assert {name.rpartition(".lora_")[0] for name in read_header(path)} == {
        "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q",
        "diffusion_model.middle_block.0.in_layers.2",
    }
    found, expected = added(folders, first, path), networks(model, first.CLIP)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=2e-3, atol=2e-3, msg=name)


def test_a_rank_bounds_what_is_kept_and_biases_only_count_if_asked(folders: Folders):
    first, second = (load_checkpoint(f"SD 1{seed}.safetensors", folders) for seed in (0, 1))
    header = read_header(saved(folders, first, second, rank=3, bias_diff=False))
    assert header and all(".lora_" in name for name in header)
    assert all(entry.shape[name.endswith("up.weight")] == 3 for name, entry in header.items())
    assert {name.split(".")[0] for name in header} > {"diffusion_model"}
    kept = read_header(saved(folders, first, second, rank=3))
    assert kept.keys() - header.keys() == {name for name in kept if name.endswith((".diff", ".diff_b"))} != set()


def test_without_a_difference_there_is_nothing_to_save(folders: Folders):
    with pytest.raises(ValueError, match="connect model_diff or text_encoder_diff"):
        save_lora(folders=folders, documents=DOCUMENTS)
