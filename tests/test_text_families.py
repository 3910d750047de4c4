"""Prompts for Stable Diffusion 3 and Flux: diffusers' states, from files and folders, in whichever order they come."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import torch
from torch import Tensor

from graph.folders import Folders
from nodes.checkpoints import TEXT_ENCODERS, DualClipType, load_clip, load_three_clips, load_two_clips
from nodes.model_errors import ModelError
from nodes.models import ModelPool
from nodes.text import set_last_layer
from nodes.text_encoding import Texts, encode_prompt
from nodes.transformer_prompts import encode_text_flux, encode_text_sd3
from nodes.values import Clip, Prompt
from tests import original_layouts as layouts
from tests import t5_models, text_families, tiny_models

POOL = ModelPool(precision="fp32", device="cpu")
TEXT = "the blue cat and a dog"
FILES = [f"{name}.safetensors" for name in text_families.PARTS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Text encoders in files, and the same in folders of `own`, with the vocabularies of both kinds."""
    found = Folders.below(tmp_path_factory.mktemp("data"))
    tiny_models.write_tokenizer(found.models("tokenizers") / "clip")
    t5_models.write_tokenizer(found.models("tokenizers") / "t5")
    text_families.write_files(found.models("text_encoders"), text_families.write_texts(found.data / "own"))
    return found


@pytest.fixture(scope="module")
def own(folders: Folders) -> Path:
    return folders.data / "own"


def encoded(clip: Clip, text: str | Texts = TEXT) -> Prompt:
    (prompt,) = encode_prompt(POOL, clip, text).prompts
    assert prompt.pooled is not None
    return prompt


def loaded(own: Path, name: str, module: str, kind: str, folder: str) -> Any:
    import importlib

    found: Any = getattr(importlib.import_module(f"transformers.models.{module}"), kind)
    return found.from_pretrained(own / folder, local_files_only=True)


def their_parts(own: Path, *, flux: bool) -> dict[str, Any]:
    """Text encoders and tokenizers as diffusers' pipelines have them."""
    clip = "CLIPTextModel" if flux else "CLIPTextModelWithProjection"
    parts: dict[str, Any] = {
        "text_encoder": loaded(own, "l", "clip.modeling_clip", clip, "text_encoder").eval(),
        "tokenizer": loaded(own, "l", "clip.tokenization_clip", "CLIPTokenizer", "tokenizer"),
        f"text_encoder_{2 if flux else 3}": loaded(
            own, "t5", "t5.modeling_t5", "T5EncoderModel", "text_encoder_3"
        ).eval(),
        f"tokenizer_{2 if flux else 3}": loaded(own, "t5", "t5.tokenization_t5", "T5Tokenizer", "tokenizer_3"),
    }
    if not flux:
        parts["text_encoder_2"] = loaded(own, "g", "clip.modeling_clip", clip, "text_encoder_2").eval()
        parts["tokenizer_2"] = loaded(own, "g", "clip.tokenization_clip", "CLIPTokenizer", "tokenizer_2")
        # Single files hold no projection of CLIP-L, and diffusers then takes one that changes nothing.
        parts["text_encoder"].text_projection.weight.data = torch.eye(text_families.LOW)
    return parts


def stable_diffusion_3(own: Path, length: int) -> tuple[Tensor, Tensor]:
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline

    made = cast(Any, StableDiffusion3Pipeline)(
        transformer=None, scheduler=None, vae=None, **their_parts(own, flux=False)
    )
    with torch.no_grad():
        states, _, pooled, _ = made.encode_prompt(
            TEXT, None, None, device="cpu", do_classifier_free_guidance=False, max_sequence_length=length
        )
    return states, pooled


def flux(own: Path, length: int) -> tuple[Tensor, Tensor]:
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

    made = cast(Any, FluxPipeline)(transformer=None, scheduler=None, vae=None, **their_parts(own, flux=True))
    with torch.no_grad():
        states, pooled, _ = made.encode_prompt(TEXT, device="cpu", max_sequence_length=length)
    return states, pooled


def test_stable_diffusion_3_is_told_what_diffusers_tells_it(folders: Folders, own: Path):
    ours = encoded(load_three_clips(*FILES, folders=folders))
    states, pooled = stable_diffusion_3(own, 77)
    torch.testing.assert_close(ours.tokens, states)
    torch.testing.assert_close(ours.pooled, pooled)
    assert ours.tokens.shape == (1, 154, text_families.T5_WIDTH)


def test_flux_is_told_what_diffusers_tells_it(folders: Folders, own: Path):
    ours = encoded(load_two_clips(FILES[0], FILES[2], type="flux", folders=folders))
    states, pooled = flux(own, 256)
    torch.testing.assert_close(ours.tokens, states)
    torch.testing.assert_close(ours.pooled, pooled)


def test_the_order_of_files_does_not_matter(folders: Folders):
    low, large, t5 = FILES
    assert len({load_three_clips(*names, folders=folders) for names in permutations(FILES)}) == 1
    pairs: list[tuple[str, str, DualClipType]] = [
        *((low, t5, "flux"), (low, t5, "sd3")),
        *((large, t5, "sd3"), (low, large, "sdxl")),
    ]
    for one, other, type in pairs:
        assert load_two_clips(one, other, type, folders=folders) == load_two_clips(other, one, type, folders=folders)


def test_files_of_full_size_are_told_apart(tmp_path: Path):
    folders = Folders.below(tmp_path)
    tiny_models.write_tokenizer(folders.models("tokenizers") / "clip")
    t5_models.write_tokenizer(folders.models("tokenizers") / "t5")
    folders.models("text_encoders").mkdir(parents=True)
    published = {
        "clip_l": layouts.clip(replace(layouts.CLIP_L, projection=768)),
        "clip_g": layouts.clip(layouts.OPEN_G),
        "t5xxl": t5_models.shapes(),
    }
    for name, shapes in published.items():
        layouts.write_header(folders.models("text_encoders") / f"{name}.safetensors", shapes)
    clip = load_three_clips(*reversed(FILES), folders=folders)
    told = [(each.tower, each.layer, each.normed, each.projected, each.pad) for each in clip.encoders]
    assert told == [
        ("CLIP-L", -2, False, False, None),
        ("CLIP-G", -2, False, True, 0),
        ("T5", -1, True, False, None),
    ]
    flux = load_two_clips(FILES[2], FILES[0], type="flux", folders=folders)
    assert [(each.tower, each.layer, each.normed) for each in flux.encoders] == [("CLIP-L", -1, True), ("T5", -1, True)]


def test_folders_of_transformers_are_text_encoders_as_files_are(folders: Folders, own: Path):
    (folders.models("text_encoders") / "sd3").symlink_to(own)
    names = [f"sd3/{part}" for part in text_families.PARTS.values()]
    assert set(names) <= set(TEXT_ENCODERS.names(folders))
    parts = load_three_clips(*names, folders=folders)
    assert [each.tokenizer.path.name for each in parts.encoders] == ["tokenizer", "tokenizer_2", "tokenizer_3"]
    assert torch.equal(encoded(parts).tokens, encoded(load_three_clips(*FILES, folders=folders)).tokens)


def test_a_text_for_t5_is_not_cut_off(folders: Folders, own: Path):
    clip = load_two_clips(FILES[0], FILES[2], type="flux", folders=folders)
    assert encoded(clip, "cat " * 300).tokens.shape == (1, 301, text_families.T5_WIDTH)


def test_weights_move_t5s_states_away_from_the_empty_prompts(folders: Folders):
    clip = load_clip(FILES[2], type="sd3", folders=folders)
    plain, heavy, empty = (encoded(clip, text).tokens for text in ("the cat", "the (cat:2.5)", ""))
    expected = plain.clone()
    expected[0, 1] = (plain[0, 1] - empty[0, 1]) * 2.5 + empty[0, 1]
    torch.testing.assert_close(heavy, expected)


def test_there_are_zeros_in_the_place_of_a_clip_that_is_absent(folders: Folders):
    whole, low, large, t5 = (
        encoded(clip)
        for clip in (
            load_three_clips(*FILES, folders=folders),
            load_two_clips(FILES[0], FILES[2], type="sd3", folders=folders),
            load_two_clips(FILES[2], FILES[1], type="sd3", folders=folders),
            load_clip(FILES[2], type="sd3", folders=folders),
        )
    )
    wide = text_families.LOW
    assert torch.equal(low.tokens[..., :wide], whole.tokens[..., :wide]) and not low.tokens[:, :77, wide:].any()
    assert torch.equal(low.tokens[:, 77:], whole.tokens[:, 77:])
    assert low.pooled is not None and low.pooled.shape == (1, wide + 1280) and not low.pooled[:, wide:].any()
    assert large.pooled is not None and large.pooled.shape == (1, 768 + 1024) and not large.pooled[:, :768].any()
    assert torch.equal(t5.tokens, whole.tokens[:, 77:]) and t5.pooled is not None and not t5.pooled.any()


def test_without_a_t5_clips_states_are_filled_up_to_its_width(folders: Folders):
    clip = load_two_clips(FILES[0], FILES[1], type="sd3", folders=folders)
    prompt, whole = encoded(clip), encoded(load_three_clips(*FILES, folders=folders))
    both = text_families.LOW + text_families.LARGE
    assert prompt.tokens.shape == (1, 77, 4096) and not prompt.tokens[..., both:].any()
    assert torch.equal(prompt.tokens[..., :both], whole.tokens[:, :77, :both])


def test_text_encoders_that_are_to_read_nothing_are_left_out(folders: Folders):
    clip = load_three_clips(*FILES, folders=folders)
    whole = encoded(clip)
    assert torch.equal(encoded(clip, {"CLIP-L": TEXT, "CLIP-G": TEXT}).tokens, whole.tokens[:, :77])
    assert torch.equal(encoded(clip, {"T5": TEXT}).tokens, whole.tokens[:, 77:])
    nothing = encoded(clip, {})
    assert nothing.tokens.shape == (1, 77, text_families.T5_WIDTH) and not nothing.tokens.any()


def sd3(clip: Clip, low: str, large: str, t5: str, empty_padding: Literal["none", "empty_prompt"] = "none") -> Tensor:
    folders = Folders.below(Path("nowhere"))
    (prompt,) = encode_text_sd3(clip, low, large, t5, empty_padding, POOL, folders).prompts
    return prompt.tokens


def test_each_text_encoder_of_stable_diffusion_3_has_a_text_of_its_own(folders: Folders):
    clip = load_three_clips(*FILES, folders=folders)
    first, second, wide = encoded(clip, "cat").tokens, encoded(clip, "dog").tokens, text_families.LOW
    mixed = sd3(clip, "cat", "dog", "the blue")
    assert torch.equal(mixed[:, :77, :wide], first[:, :77, :wide])
    assert torch.equal(mixed[:, :77, wide:1088], second[:, :77, wide:1088])
    assert torch.equal(mixed[:, 77:], encoded(clip, "the blue").tokens[:, 77:])


def test_empty_texts_are_left_out_or_encoded(folders: Folders):
    clip = load_three_clips(*FILES, folders=folders)
    assert torch.equal(sd3(clip, "", "", "cat"), encoded(clip, "cat").tokens[:, 77:])
    assert torch.equal(sd3(clip, "cat", "cat", ""), encoded(clip, "cat").tokens[:, :77])
    assert torch.equal(sd3(clip, "", "", "", "empty_prompt"), encoded(clip, "").tokens)
    assert not sd3(clip, "", "", "").any()


def test_both_clips_have_as_many_chunks(folders: Folders):
    clip = load_three_clips(*FILES, folders=folders)
    assert sd3(clip, "cat", "dog " * 100, "").shape == sd3(clip, "dog " * 100, "", "").shape == (1, 154, 1792)


def test_flux_is_told_a_text_for_each_and_a_guidance(folders: Folders):
    clip = load_two_clips(FILES[0], FILES[2], type="flux", folders=folders)
    (prompt,) = encode_text_flux(clip, "cat", "dog", 2.0, POOL, folders).prompts
    assert prompt.pooled is not None and prompt.guidance == 2.0
    assert torch.equal(prompt.pooled, cast(Tensor, encoded(clip, "cat").pooled))
    assert torch.equal(prompt.tokens, encoded(clip, "dog").tokens)


def test_embeddings_are_nothing_to_a_t5(folders: Folders):
    clip = load_two_clips(FILES[0], FILES[2], type="flux", folders=folders)
    (prompt,) = encode_prompt(POOL, clip, "the embedding:none cat", folders).prompts
    assert torch.equal(prompt.tokens, encoded(clip, "the cat").tokens)


def test_clips_layers_can_be_chosen(folders: Folders):
    clip = load_three_clips(*FILES, folders=folders)
    assert torch.equal(encoded(set_last_layer(clip, -1)).tokens[:, 77:], encoded(clip).tokens[:, 77:])
    earlier, same = encoded(set_last_layer(clip, -3)).tokens, encoded(set_last_layer(clip, -2)).tokens
    assert torch.equal(same[:, :77], encoded(clip).tokens[:, :77]) and not torch.equal(earlier, same)


@pytest.mark.parametrize(
    ("names", "type", "reason"),
    [
        ((FILES[0], FILES[1]), "flux", "Flux needs a CLIP-L and a T5, but there is CLIP-L and CLIP-G"),
        ((FILES[0], FILES[2]), "sdxl", "but there is CLIP-L and T5. With a T5, choose the type sd3 or flux"),
        ((FILES[2], FILES[2]), "sd3", "two are of the same kind .T5 and T5."),
    ],
)
def test_text_encoders_that_do_not_belong_together_are_refused(
    names: tuple[str, str], type: Any, reason: str, folders: Folders
):
    with pytest.raises(ModelError, match=reason):
        load_two_clips(*names, type=type, folders=folders)


def test_a_t5_alone_is_stable_diffusion_3s(folders: Folders):
    with pytest.raises(ModelError, match="With a T5, choose the type sd3"):
        load_clip(FILES[2], folders=folders)


def test_a_t5_that_is_too_narrow_is_refused(folders: Folders):
    t5_models.write_encoder(folders.data / "narrow", 128)
    path = folders.models("text_encoders") / "narrow.safetensors"
    (folders.data / "narrow" / "model.safetensors").rename(path)
    clip = load_two_clips(FILES[1], path.name, type="sd3", folders=folders)
    with pytest.raises(
        ModelError, match="states of width 128 do not follow CLIP's, whose width is 768 and 1024. Stable"
    ):
        encoded(clip)
