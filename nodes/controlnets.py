"""ControlNets and T2I-Adapters: load one, and have it steer prompts by a picture."""

from dataclasses import replace
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field

from graph.folders import Folders
from graph.literals import Widget
from graph.node import composite, node
from graph.values import INJECTED
from nodes.control_files import CONTROL_NETS, read_control_net
from nodes.values import Conditioning, Control, ControlNet, Image, Model, Vae

ControlNetName = Annotated[str, CONTROL_NETS]
Strength = Annotated[
    float, Field(ge=0, le=10, description="How strongly the picture steers; 0 not at all."), Widget(step=0.01)
]
Moment = Annotated[
    float, Field(ge=0, le=1, description="0: where sampling begins, 1: where it ends."), Widget(step=0.001)
]
UnionType = Literal[
    "auto",
    "openpose",
    "depth",
    "hed/pidi/scribble/ted",
    "canny/lineart/anime_lineart/mlsd",
    "normal",
    "segment",
    "tile",
    "repaint",
]


class Prompts(NamedTuple):
    """Prompts that a picture steers."""

    positive: Conditioning
    negative: Conditioning


@node("ControlNetLoader", category="loaders", title="Load ControlNet Model")
def load_control_net(control_net_name: ControlNetName, folders: Folders = INJECTED) -> ControlNet:
    """A ControlNet or T2I-Adapter, by name."""
    return read_control_net(CONTROL_NETS.locate(folders, control_net_name), control_net_name)


@node("DiffControlNetLoader", category="loaders", title="Load ControlNet Model (diff)")
def load_difference(model: Model, control_net_name: ControlNetName, folders: Folders = INJECTED) -> ControlNet:
    """A ControlNet that is kept as a difference to the weights of a model, which are added."""
    return read_control_net(CONTROL_NETS.locate(folders, control_net_name), control_net_name, model)


@node("SetUnionControlNetType", category="conditioning/controlnet")
def set_union_type(
    control_net: ControlNet,
    type: Annotated[UnionType, Field(description="What its picture shows; auto leaves it open.")] = "auto",
) -> ControlNet:
    """Say what kind of picture a ControlNet that knows several is given; others take no notice."""
    number = get_args(UnionType).index(type) - 1
    return replace(control_net, type=number if number >= 0 else None)


@node("SteerPrompt", category="conditioning/controlnet")
def steer(
    conditioning: Conditioning,
    control_net: ControlNet,
    image: Image,
    strength: Strength = 1.0,
    start_percent: Moment = 0.0,
    end_percent: Moment = 1.0,
    shared: Annotated[
        bool, Field(description="Steer the negative prompt with it, if nothing else steers that one.")
    ] = False,
) -> Conditioning:
    """Have a picture steer a prompt, beside those that do already (Zhang et al. 2023)."""
    control = Control(control_net, image.rgb, strength, start_percent, end_percent)
    prompts = conditioning.prompts
    return Conditioning(
        tuple(replace(each, controls=(*each.controls, control), shares_controls=shared) for each in prompts)
    )


# The two below are made of it, so that a prompt's identity has nothing of the other one, nor of what does not count.


@composite("ControlNetApply", category="conditioning/controlnet", title="Apply ControlNet (OLD)", stage="deprecated")
def apply_control_net(
    conditioning: Conditioning, control_net: ControlNet, image: Image, strength: Strength = 1.0
) -> Conditioning:
    """Have a picture steer a prompt, and the negative prompt with it, all the time."""
    if not strength:
        return conditioning
    return steer(conditioning, control_net, image, strength, shared=True)


@composite("ControlNetApplyAdvanced", category="conditioning/controlnet", title="Apply ControlNet")
def apply_control_net_for_a_while(
    positive: Conditioning,
    negative: Conditioning,
    control_net: ControlNet,
    image: Image,
    strength: Strength = 1.0,
    start_percent: Moment = 0.0,
    end_percent: Moment = 1.0,
    vae: Annotated[Vae | None, Field(description="Only ControlNets of other families need one.")] = None,
) -> Prompts:
    """Have a picture steer both prompts during a part of the sampling."""
    if not strength:
        return Prompts(positive, negative)
    prompts = (steer(each, control_net, image, strength, start_percent, end_percent) for each in (positive, negative))
    return Prompts(*prompts)
