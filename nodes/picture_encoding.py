"""Encode pictures with CLIP's picture encoder, which the model pool has."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch import device as Device
from torch.nn import Module

from graph.collector import collector_paused
from nodes.materialise import Kind, load_network
from nodes.maths.clip_pictures import HALF, MEAN, SPREAD, clip_pictures
from nodes.model_folders import TEXT_STEM
from nodes.models import ModelPool
from nodes.picture_encoder_layout import picture_encoder_plan, transformers_places, unused
from nodes.picture_prompts import ClipVision, ClipVisionOutput
from nodes.precision import Precision
from nodes.siglip_layout import MODEL_TYPE

PICTURE_ENCODER = Kind(TEXT_STEM, picture_encoder_plan, transformers_places, unused)
PRECISION = Precision("fp32", False, "a picture is encoded once, and exactly", as_filed=True)


def encode_pictures(
    models: ModelPool, encoder: ClipVision, pixels: Float[Tensor, "batch height width 3"], crop: bool
) -> ClipVisionOutput:
    """What the encoder says of pictures of 0…1, each on its own.

    Args:
        crop: whether their middle is cut out, rather than all of them squeezed into a square.
    """
    config = network(models, encoder).config
    norms = (HALF, HALF) if config.model_type == MODEL_TYPE else (MEAN, SPREAD)
    return encode_normalised(models, encoder, clip_pictures(pixels.to(models.device), config.image_size, crop, *norms))


def encode_nothing(models: ModelPool, encoder: ClipVision) -> ClipVisionOutput:
    """What the encoder says of the mean of all pictures, which is zero after normalising."""
    side = network(models, encoder).config.image_size
    return encode_normalised(models, encoder, torch.zeros(1, 3, side, side, device=models.device))


def encode_normalised(
    models: ModelPool, encoder: ClipVision, planes: Float[Tensor, "batch 3 side side"]
) -> ClipVisionOutput:
    module = network(models, encoder)
    with torch.no_grad():
        found = [module(pixel_values=part, output_hidden_states=True) for part in torch.split(planes, 1)]
    return ClipVisionOutput(
        torch.cat([_embedded(each) for each in found]).cpu(),
        torch.cat([each.last_hidden_state for each in found]).cpu(),
        torch.cat([each.hidden_states[-2] for each in found]).cpu(),
    )


def _embedded(found: Any) -> Tensor:
    """What CLIP says in the space shared with texts; the mean of SigLIP's states, as what pools them is left out."""
    return found.image_embeds if hasattr(found, "image_embeds") else found.last_hidden_state.mean(1)


def network(models: ModelPool, encoder: ClipVision) -> Any:
    """transformers' network. Raises ModelError."""

    def load(device: Device) -> Module:
        with collector_paused():
            from transformers.models.clip.configuration_clip import CLIPVisionConfig
            from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection
            from transformers.models.siglip.configuration_siglip import SiglipVisionConfig
            from transformers.models.siglip.modeling_siglip import SiglipVisionModel

        def build(config: Mapping[str, Any]) -> Module:
            if config.get("model_type") == MODEL_TYPE:
                without_head = {**config, "vision_use_head": False}
                return SiglipVisionModel(cast(Any, SiglipVisionConfig).from_dict(without_head))
            return CLIPVisionModelWithProjection(cast(Any, CLIPVisionConfig).from_dict(_of_pictures(config)))

        module = load_network(encoder.weights, PICTURE_ENCODER, build, PRECISION, device)
        # The positions are a buffer that files do not hold.
        embeddings = cast(Any, getattr(module, "vision_model", module)).embeddings
        embeddings.position_ids = torch.arange(embeddings.num_positions, device=device)[None]
        # By its type transformers goes with the type of pictures, which is to stay float32.
        embeddings.patch_embedding.weight.data = embeddings.patch_embedding.weight.data.float()
        return module

    return models.network(encoder.weights, "picture encoder", PRECISION, load)


def _of_pictures(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a picture encoder, which may be a part of a whole CLIP's."""
    if "vision_config" not in config:
        return dict(config)
    return {**config["vision_config"], "projection_dim": config.get("projection_dim", 512)}
