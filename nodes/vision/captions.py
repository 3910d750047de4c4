"""What pictures show, in words."""

from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from graph.node import Many, node
from graph.values import INJECTED
from nodes.models import ModelPool
from nodes.values import Image
from nodes.vision.models import VisionModel, require

if TYPE_CHECKING:
    from torch import Tensor


@node("ImageCaption", category="vision", title="Image Caption", lane="device")
def caption(
    vision_model: VisionModel,
    image: Image,
    beginning: Annotated[str, Field(description="What every caption is to begin with.")] = "",
    longest: Annotated[int, Field(ge=1, le=1000, description="Tokens, beside those of the beginning.")] = 30,
    beams: Annotated[
        int, Field(ge=1, le=32, description="How many captions are tried side by side; 1: word by word.")
    ] = 1,
    models: ModelPool = INJECTED,
) -> Many[str]:
    """A sentence for each picture, always the same for the same picture: the likeliest words."""
    require(vision_model, "captioning")
    import torch

    return [_caption(models, vision_model, part, beginning, longest, beams) for part in torch.split(image.rgb, 1)]


def _caption(models: ModelPool, model: VisionModel, pixels: "Tensor", beginning: str, longest: int, beams: int) -> str:
    import torch

    from nodes.vision.loading import network, tokenizer
    from nodes.vision.seeing import inputs

    words = tokenizer(model)
    given: dict[str, Any] = dict(inputs(models, model, pixels))
    if beginning:
        ids = words(beginning).input_ids
        if ids[-1:] == [words.eos_token_id] and not model.architecture.startswith("Blip"):  # which cuts it itself
            ids = ids[:-1]
        place = "decoder_input_ids" if model.architecture == "VisionEncoderDecoderModel" else "input_ids"
        given[place] = torch.tensor([ids], device=models.device)
    with torch.no_grad():
        made = network(models, model).generate(
            **given, max_new_tokens=longest, num_beams=beams, do_sample=False, max_length=None
        )
    return cast(str, words.decode(made[0], skip_special_tokens=True)).strip()
