"""Flux Redux and the SigLIP it listens to, scaled down, against diffusers' and transformers' own networks."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph.folders import Folders
from nodes.clip_vision import encode_clip_vision, load_clip_vision
from nodes.inspection import describe
from nodes.model_errors import ModelError, WrongPrompt
from nodes.models import ModelPool
from nodes.picture_prompts import ClipVisionOutput
from nodes.style_models import apply_style_model, load_style_model
from nodes.values import Conditioning, Image, Prompt
from tests import tiny_models
from tests.original_layouts import write_weights

pytestmark = pytest.mark.usefixtures("packed_as_large_ones")
POOL = ModelPool("fp32", "cpu")
WIDTH, TOKENS, SIDE = 128, 48, 28
PICTURE = torch.rand(2, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(1))


def siglip() -> Any:
    from transformers.models.siglip.configuration_siglip import SiglipVisionConfig
    from transformers.models.siglip.modeling_siglip import SiglipVisionModel

    tiny_models.seed(2)
    sizes: Any = {"hidden_size": WIDTH, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2}
    return SiglipVisionModel(SiglipVisionConfig(**sizes, image_size=SIDE, patch_size=14)).eval()


def redux() -> Any:
    from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder

    tiny_models.seed(3)
    return cast(Any, ReduxImageEncoder)(WIDTH, TOKENS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """SigLIP as a file, as published, and as a folder; a Redux as a file."""
    found = Folders.below(tmp_path_factory.mktemp("data"))
    start = "vision_model."
    weights = {f"{start}{name.removeprefix(start)}": each for name, each in siglip().state_dict().items()}
    write_weights(found.models("clip_vision") / "siglip.safetensors", weights)
    tiny_models.save(siglip(), found.models("clip_vision") / "folder")
    write_weights(found.models("style_models") / "redux.safetensors", redux().state_dict())
    return found


def states() -> Tensor:
    with torch.no_grad():
        return siglip()(pixel_values=((PICTURE * 255).round() / 255 * 2 - 1).movedim(-1, 1)).last_hidden_state


def said(folders: Folders, name: str = "siglip.safetensors") -> ClipVisionOutput:
    return encode_clip_vision(load_clip_vision(name, folders), Image(PICTURE), "none", POOL)


@pytest.mark.parametrize("name", ["siglip.safetensors", "folder"])
def test_pictures_are_encoded_as_transformers_does(name: str, folders: Folders):
    found = said(folders, name)
    torch.testing.assert_close(found.last_hidden_state, states(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.image_embeds, states().mean(1), rtol=1e-4, atol=1e-4)


PROMPT = Prompt(torch.zeros(1, 5, TOKENS), torch.zeros(1, 8), guidance=2.0)


def test_what_a_picture_looks_like_is_appended_to_a_prompt(folders: Folders):
    style = load_style_model("redux.safetensors", folders)
    with torch.no_grad():
        tokens = redux()(states()).image_embeds.flatten(0, 1)
    for strength in (1.0, 0.25):
        (prompt,) = apply_style_model(Conditioning((PROMPT,)), style, said(folders), strength, models=POOL).prompts
        assert prompt.tokens.shape == (1, 5 + 2 * 4, TOKENS) and prompt.guidance == 2.0
        torch.testing.assert_close(prompt.tokens[0, 5:], tokens * strength, rtol=1e-4, atol=1e-4)
    same = apply_style_model(Conditioning((PROMPT,)), style, said(folders), 1.0, "attn_bias", POOL).prompts[0]
    assert torch.allclose(same.tokens[0, 5:], tokens, atol=1e-4)
    with pytest.raises(ValueError, match="choose multiply, or a strength of 1"):
        apply_style_model(Conditioning((PROMPT,)), style, said(folders), 0.5, "attn_bias", POOL)


def test_states_of_another_encoder_are_refused(folders: Folders):
    other = ClipVisionOutput(torch.zeros(1, 8), torch.zeros(1, 4, 64), torch.zeros(1, 4, 64))
    with pytest.raises(WrongPrompt, match="a picture of width 64, where 128 is needed; encode it with SigLIP"):
        style = load_style_model("redux.safetensors", folders)
        apply_style_model(Conditioning((PROMPT,)), style, other, models=POOL)


def test_they_are_named(folders: Folders, tmp_path: Path):
    encoder, style = (folders.models("clip_vision") / "siglip.safetensors", folders.models("style_models"))
    assert "SigLIP 128 wide/14 for 28 pixels" in describe(encoder).lines
    assert describe(style / "redux.safetensors").title == "Flux style model (original layout)"
    write_weights(folders.models("style_models") / "other.safetensors", {"redux_up.weight": torch.zeros(8, 8)})
    with pytest.raises(ModelError, match="not a style model: there is no redux_down.weight"):
        load_style_model("other.safetensors", folders)
