"""Whether a network that steers was made for a model: both must have the same levels, and be told the same."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from nodes.identification import family_of
from nodes.values import ControlNet, Model
from nodes.weight_places import NotThisNetwork

XL_MULTIPLE = 16
"""Of the sides of pictures for adapters of SDXL models."""


class ForeignControl(ValueError):
    """A network that steers was made for a model of another family."""

    def __init__(self, model: Model, control: ControlNet, families: tuple[str, str], difference: str) -> None:
        own, models = families
        super().__init__(
            f"the {control.design} {control.weights.name!r} ({own}) does not fit the model {model.weights.name!r} "
            f"({models}): {difference}; choose one that was made for models of its family"
        )


_ALIKE = {
    "block_out_channels": "the widths of its levels",
    "layers_per_block": "the number of its layers at a level",
    "cross_attention_dim": "the width of the text states it expects",
    "projection_class_embeddings_input_dim": "what it is told beside the text",
}
"""What has to be the same in both networks, and how an error calls it."""


def check_config(model: Model, unet: Any, control: ControlNet, config: Any) -> None:
    """Compare the configuration of a ControlNet with that of a U-Net. Raises ForeignControl."""
    for name, words in _ALIKE.items():
        if name == "cross_attention_dim" and config.cross_attention_dim is None:
            continue  # it looks at no text
        if name.startswith("projection") and config.addition_embed_type is None is unet.addition_embed_type:
            continue
        own, models = (_plain(getattr(each, name)) for each in (config, unet))
        if own != models:
            difference = f"{words}: {own}, and the model's {models}"
            raise ForeignControl(model, control, (_family(config), _family(unet)), difference)


def check_features(
    model: Model, unet: Any, control: ControlNet, shapes: Sequence[Sequence[int]], latent: Sequence[int]
) -> None:
    """Each level of an adapter must find a level of the U-Net that is as wide, and as large. Raises ForeignControl."""
    found = [tuple(shape[1:]) for shape in shapes]
    expected = _levels(unet, latent[-2], latent[-1])
    if found != expected[: len(found)]:
        family = "SDXL" if control.multiple == XL_MULTIPLE else "SD 1"
        difference = f"it makes {_sizes(found)}, and the model has {_sizes(expected)}"
        raise ForeignControl(model, control, (family, _family(unet)), difference)


def _levels(unet: Any, height: int, width: int) -> list[tuple[int, int, int]]:
    """Channels and size of what the U-Net's levels give, where diffusers adds to them; the last is the middle."""
    widths, levels = unet.block_out_channels, list[tuple[int, int, int]]()
    for at, kind in enumerate(unet.down_block_types):
        halved = -(-height // 2), -(-width // 2)
        last = at + 1 == len(widths)
        size = halved if kind == "DownBlock2D" and not last else (height, width)
        levels.append((widths[at], *size))
        height, width = (height, width) if last else halved
    return [*levels, (widths[-1], height, width)]


def _sizes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(" x ".join(map(str, shape)) for shape in shapes)


def _family(config: Any) -> str:
    stated = {name: value for name, value in cast("Mapping[str, Any]", config).items() if value is not None}
    try:
        return family_of(stated)
    except NotThisNetwork:
        return "of no known family"


def _plain(value: object) -> object:
    return list(cast("Sequence[object]", value)) if isinstance(value, list | tuple) else value
