"""Several text encoders, one of them a T5, saved, mixed and changed by LoRAs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from graph.folders import Folders
from nodes import merging
from nodes.checkpoints import load_checkpoint, load_clip, load_three_clips
from nodes.documents import Documents
from nodes.lora_files import lora_tensors
from nodes.loras import load_lora
from nodes.model_errors import ModelError
from nodes.model_saving import save_checkpoint, save_clip
from nodes.models import ModelPool
from nodes.text_encoding import encode_prompt
from nodes.values import Clip
from tests import t5_models, text_families, tiny_models, whole_transformers
from tests.original_layouts import write_weights

POOL = ModelPool(precision="fp32", device="cpu")
DOCUMENTS = Documents({})
FILES = [f"{name}.safetensors" for name in text_families.PARTS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A whole checkpoint, its text encoders in files of their own, and others; what is saved can be loaded."""
    data = tmp_path_factory.mktemp("data")
    found = Folders.below(data, data / "models")
    tiny_models.write_tokenizer(found.models("tokenizers") / "clip")
    t5_models.write_tokenizer(found.models("tokenizers") / "t5")
    whole = found.models("checkpoints") / "SD 3"
    whole_transformers.write_whole(whole, "SD 3")
    for name, part in text_families.PARTS.items():
        weights = tiny_models.load_weights(whole / part / "model.safetensors")
        write_weights(found.models("text_encoders") / f"{name}.safetensors", weights)
        other = {key: tensor * 0.5 + 0.01 for key, tensor in weights.items()}
        write_weights(found.models("text_encoders") / f"other_{name}.safetensors", other)
    return found


def states(clip: Clip) -> Tensor:
    return encode_prompt(POOL, clip, "the (blue:1.3) cat").prompts[0].tokens


def test_three_text_encoders_are_saved_in_three_files(folders: Folders):
    clip = load_three_clips(*FILES, folders=folders)
    saved = save_clip(clip, "text_encoders/own", folders, DOCUMENTS).paths
    names = [path.name for path in saved]
    assert names == [f"own_{name}_00001_.safetensors" for name in ("clip_l", "clip_g", "t5xxl")]
    assert torch.equal(states(load_three_clips(*names, folders=folders)), states(clip))


def test_text_encoders_are_saved_in_a_checkpoint(folders: Folders):
    found = load_checkpoint("SD 3.safetensors", folders=folders)
    (path,) = save_checkpoint(found.MODEL, found.CLIP, found.VAE, "checkpoints/own", folders, DOCUMENTS).paths
    whole = folders.models("checkpoints") / "SD 3.safetensors"
    written, expected = (
        {name: tensor for name, tensor in tiny_models.load_weights(each).items() if name.startswith("text_encoders.")}
        for each in (path, whole)
    )
    assert all(torch.equal(tensor, expected[name]) for name, tensor in written.items())
    assert torch.equal(states(load_checkpoint(path.name, folders=folders).CLIP), states(found.CLIP))


def test_a_t5_of_8_bits_is_saved_in_16(folders: Folders):
    path = folders.models("text_encoders") / "fp8.safetensors"
    weights = tiny_models.load_weights(path.with_name("t5xxl.safetensors"))
    write_weights(path, {name: tensor.to(torch.float8_e4m3fn) for name, tensor in weights.items()})
    clip = load_clip(path.name, type="sd3", folders=folders)
    (saved,) = save_clip(clip, "text_encoders/from8", folders, DOCUMENTS).paths
    assert {tensor.dtype for tensor in tiny_models.load_weights(saved).values()} == {torch.bfloat16}
    assert torch.equal(states(load_clip(saved.name, type="sd3", folders=folders)), states(clip))


def test_all_text_encoders_are_mixed(folders: Folders):
    clip, other = (load_three_clips(*names, folders=folders) for names in (FILES, [f"other_{name}" for name in FILES]))
    mixed = merging.merge_clips(clip, other, 0.25)
    for one, two, both in zip(clip.encoders, other.encoders, mixed.encoders, strict=True):
        first, second, found = (POOL.text_encoder(each).state_dict() for each in (one, two, both))
        for name in ("final_layer_norm.weight", "shared.weight", "encoder.block.1.layer.0.SelfAttention.k.weight"):
            if name in found:
                torch.testing.assert_close(found[name], 0.25 * first[name] + 0.75 * second[name])
    assert merging.merge_clips(clip, other, 1.0) == clip


def test_text_encoders_of_different_kinds_are_not_mixed(folders: Folders):
    clip = load_three_clips(*FILES, folders=folders)
    with pytest.raises(merging.UnlikeNetworks):
        merging.merge_clips(clip, load_clip(FILES[2], type="sd3", folders=folders), 0.5)


def test_a_lora_changes_both_clips_and_no_t5(folders: Folders, caplog: pytest.LogCaptureFixture):
    module, weights = "text_model_encoder_layers_1_self_attn_q_proj", dict[str, Tensor]()
    for part, width in (("te1", text_families.LOW), ("te2", text_families.LARGE)):
        weights |= {f"lora_{part}_{module}.lora_{end}.weight": torch.full(shape, 0.1) for end, shape in
                    (("up", (width, 2)), ("down", (2, width)))}  # fmt: skip
    weights["lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight"] = torch.ones(2, 1792)
    write_weights(folders.models("loras") / "texts.safetensors", weights)
    found = load_checkpoint("SD 3.safetensors", folders=folders)
    changed = load_lora(found.MODEL, found.CLIP, "texts.safetensors", 0.0, 1.0, folders).CLIP
    patched = [bool(each.weights.patches) for each in changed.encoders]
    assert patched == [True, True, False] and "1 of 5 tensors fit nothing: lora_te3" in caplog.text
    assert not torch.equal(states(changed)[:, :77], states(found.CLIP)[:, :77])
    assert torch.equal(states(changed)[:, 77:], states(found.CLIP)[:, 77:])


def test_a_lora_of_a_t5_is_not_written(folders: Folders):
    clip = load_clip(FILES[2], type="sd3", folders=folders)
    with pytest.raises(ModelError, match="a LoRA for a T5 cannot be written"):
        list(lora_tensors(None, clip, 4, biases=True))


def mixed(clip: Clip, folders: Folders) -> None:
    merging.merge_clips(clip, clip, 0.5)


def saved(clip: Clip, folders: Folders) -> None:
    save_clip(clip, "text_encoders/none", folders, DOCUMENTS)


@pytest.mark.parametrize("use", [mixed, saved])
def test_what_is_not_there_is_neither_mixed_nor_saved(use: Callable[[Clip, Folders], None], folders: Folders):
    path = folders.models("checkpoints") / "none.safetensors"
    weights = tiny_models.load_weights(path.with_name("SD 3.safetensors"))
    tiny_models.save_weights({name: each for name, each in weights.items() if "text_encoders" not in name}, path)
    clip = load_checkpoint(path.name, folders=folders).CLIP
    with pytest.raises(ModelError, match="holds no text encoder"):
        use(clip, folders)
    assert not list(Path(folders.output).glob("text_encoders/none*"))
