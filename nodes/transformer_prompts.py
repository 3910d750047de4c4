"""Prompts for diffusion transformers: a text for each text encoder, and how strongly it is to be followed."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from graph.folders import Folders
from graph.literals import Between
from graph.node import node
from graph.values import INJECTED
from nodes.models import ModelPool
from nodes.text import PromptText
from nodes.values import Clip, Conditioning, Tower

Guidance = Annotated[float, Between(0, 100, "How strongly the network is told to follow the prompt.", step=0.1)]


@node("CLIPTextEncodeSD3", category="advanced/conditioning", lane="device")
def encode_text_sd3(
    clip: Clip,
    clip_l: PromptText,
    clip_g: PromptText,
    t5xxl: PromptText,
    empty_padding: Annotated[
        Literal["none", "empty_prompt"],
        Field(
            description="What is made of empty texts: nothing, where T5's is empty or both of CLIP's are, "
            "or what text encoders make of an empty prompt."
        ),
    ] = "none",
    models: ModelPool = INJECTED,
    folders: Folders = INJECTED,
) -> Conditioning:
    """Encode a text for each of the text encoders of Stable Diffusion 3."""
    from nodes.text_encoding import encode_prompt

    texts: dict[Tower, str] = {}
    if clip_l or clip_g or empty_padding == "empty_prompt":
        texts |= {"CLIP-L": clip_l, "CLIP-G": clip_g}
    if t5xxl or empty_padding == "empty_prompt":
        texts["T5"] = t5xxl
    return encode_prompt(models, clip, texts, folders)


@node("CLIPTextEncodeFlux", category="advanced/conditioning/flux", lane="device")
def encode_text_flux(
    clip: Clip,
    clip_l: PromptText,
    t5xxl: PromptText,
    guidance: Guidance = 3.5,
    models: ModelPool = INJECTED,
    folders: Folders = INJECTED,
) -> Conditioning:
    """Encode a text for each of Flux's text encoders, and state how strongly the network is to follow the prompt."""
    from nodes.text_encoding import encode_prompt

    texts: dict[Tower, str] = {"CLIP-L": clip_l, "CLIP-G": clip_l, "T5": t5xxl}
    return guided(encode_prompt(models, clip, texts, folders), guidance)


@node("FluxGuidance", category="advanced/conditioning/flux")
def state_guidance(conditioning: Conditioning, guidance: Guidance = 3.5) -> Conditioning:
    """State how strongly a network that was distilled from guided ones, as Flux, follows the prompts."""
    return guided(conditioning, guidance)


@node("FluxDisableGuidance", category="advanced/conditioning/flux")
def leave_out_guidance(conditioning: Conditioning) -> Conditioning:
    """Do not tell the network how strongly it is to follow the prompts."""
    return guided(conditioning, None)


def guided(conditioning: Conditioning, guidance: float | None) -> Conditioning:
    return Conditioning(tuple(replace(prompt, guidance=guidance) for prompt in conditioning.prompts))
