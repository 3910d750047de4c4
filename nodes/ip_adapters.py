"""IP-Adapters: pictures as prompts beside the text, in cross-attention of their own, Ye et al. (2023)."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from graph.folders import Folders
from graph.literals import Widget
from graph.node import node
from graph.values import INJECTED
from nodes.adapter_names import canonical_shapes, unet_family
from nodes.architectures import for_unets
from nodes.ip_adapter_layout import ATTENTION, FACE_ID, PICTURES, cross_attentions, design_of, key_shapes
from nodes.model_errors import ModelError
from nodes.model_sources import PartSource
from nodes.models import ModelPool
from nodes.network_patches import PictureAttention
from nodes.picture_prompts import ClipVision, IpAdapter
from nodes.single_files import file_reference, identified
from nodes.unet_patches import patched_by
from nodes.values import Image, Mask, Model
from nodes.weight_files import read_header
from nodes.weight_places import NotThisNetwork, shapes_below

IP_ADAPTERS = PartSource("IP-Adapter", "ipadapter")

Moment = Annotated[
    float, Field(ge=0, le=1, description="0: where sampling begins, 1: where it ends."), Widget(step=0.001)
]


@node("IPAdapterModelLoader", category="ipadapter/loaders", title="IPAdapter Model Loader")
def load_ip_adapter(ipadapter_file: Annotated[str, IP_ADAPTERS], folders: Folders = INJECTED) -> IpAdapter:
    """An IP-Adapter, by name: for Stable Diffusion 1 or SDXL, of the base, plus or full face design."""
    return read_ip_adapter(IP_ADAPTERS.locate(folders, ipadapter_file), ipadapter_file)


@node("IPAdapterAdvanced", category="ipadapter", title="IPAdapter Advanced", lane="device")
def apply_ip_adapter(
    model: Model,
    ipadapter: IpAdapter,
    image: Image,
    clip_vision: ClipVision,
    weight: Annotated[
        float, Field(ge=-1, le=5, description="How much pictures count beside the text."), Widget(step=0.05)
    ] = 1.0,
    weight_type: Annotated[Literal["linear"], Field(description="The same in all layers.")] = "linear",
    combine_embeds: Annotated[
        Literal["concat", "average"], Field(description="Several pictures side by side, or what they have in common.")
    ] = "concat",
    start_at: Moment = 0.0,
    end_at: Moment = 1.0,
    embeds_scaling: Annotated[Literal["V only"], Field(description="What the weight weighs: the values.")] = "V only",
    image_negative: Image | None = None,
    attn_mask: Mask | None = None,
    models: ModelPool = INJECTED,
) -> Model:
    """Show a model pictures beside the text, from one moment of the sampling to another, everywhere or by a mask."""
    for_unets(model, PictureAttention.made_by)
    check_fit(model, ipadapter)
    if not weight:
        return model
    from nodes.picture_tokens import picture_tokens

    unlike = None if image_negative is None else image_negative.rgb
    mask = None if attn_mask is None else attn_mask.values[:1]
    pictures = picture_tokens(models, ipadapter, clip_vision, image.rgb, unlike, combine_embeds, mask)
    adapter = replace(ipadapter.weights, part=ATTENTION)
    return patched_by(model, PictureAttention(adapter, pictures, weight, first=start_at, last=end_at))


def read_ip_adapter(path: Path, name: str) -> IpAdapter:
    """A reference to an IP-Adapter. Raises ModelError."""
    _, found = identified(path, "IP-Adapter")
    if found.layout == FACE_ID:
        reason = "it is a FaceID adapter, which is told of faces by a network that is not here"
        raise ModelError(path, reason, "Take a base, plus or full face adapter.")
    return IpAdapter(file_reference(path, name, ""), design_of(shapes_below(read_header(path), PICTURES)))


def check_fit(model: Model, adapter: IpAdapter) -> None:
    """Raise ModelError unless the adapter has keys of the right shape for each cross-attention of the model."""
    shapes = canonical_shapes(model.weights, "U-Net")
    wanted = [shapes.get(f"{name}.to_k.weight") for name in cross_attentions(shapes)]
    path = adapter.weights.path
    try:
        found = key_shapes(shapes_below(read_header(path), ATTENTION))
    except NotThisNetwork as error:
        raise ModelError(path, f"the IP-Adapter cannot be used: {error}") from error
    if found == wanted:
        return
    unlike = [f"{list(a)} instead of {list(b)}" for a, b in zip(found, wanted, strict=False) if b and a != b]
    layers = f"it is for {len(found)} layers, and the model has {len(wanted)}"
    differs = f"its keys are {unlike[0]}" if unlike else layers
    own = identified(path, "IP-Adapter")[1].family
    kind = f"an IP-Adapter for {own or 'other networks'}"
    network = f"the U-Net of {model.weights.name!r} ({unet_family(shapes) or 'of no known family'})"
    raise ModelError(path, f"{kind}, which does not fit {network}: {differs}", "Choose one made for this model.")
