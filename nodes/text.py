"""Prompts: encode them, and combine what was encoded."""

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from graph.folders import Folders
from graph.literals import Widget
from graph.node import node
from graph.values import INJECTED
from nodes.embeddings import EMBEDDINGS
from nodes.model_errors import WrongPrompt
from nodes.models import ModelPool
from nodes.values import Clip, Conditioning, Prompt

PromptText = Annotated[
    str,
    EMBEDDINGS,
    Field(
        description="What to show. (word:1.2) makes a word count more, \\( and \\) stand for themselves; "
        "embedding:name is a textual inversion."
    ),
    Widget(multiline=True, dynamic_prompts=True),
]


@node("CLIPTextEncode", category="conditioning", title="CLIP Text Encode (Prompt)", lane="device")
def encode_text(
    text: PromptText, clip: Clip, models: ModelPool = INJECTED, folders: Folders = INJECTED
) -> Conditioning:
    """Encode a prompt with a CLIP text encoder."""
    from nodes.text_encoding import encode_prompt

    return encode_prompt(models, clip, text, folders=folders)


@node("CLIPSetLastLayer", category="conditioning", title="CLIP Set Last Layer")
def set_last_layer(
    clip: Clip,
    stop_at_clip_layer: Annotated[
        int, Field(ge=-24, le=-1, description="-1: the last layer, -2: the one before …")
    ] = -1,
) -> Clip:
    """Take the text encoder's states from an earlier layer (“clip skip”)."""
    further = tuple(replace(each, layer=stop_at_clip_layer) for each in clip.further)
    return replace(clip, layer=stop_at_clip_layer, further=further)


@node("ConditioningCombine", category="conditioning")
def combine(conditioning_1: Conditioning, conditioning_2: Conditioning) -> Conditioning:
    """Let both steer: their predictions are averaged at every step."""
    return Conditioning((*conditioning_1.prompts, *conditioning_2.prompts))


@node("ConditioningAverage", category="conditioning")
def average(
    conditioning_to: Conditioning,
    conditioning_from: Conditioning,
    conditioning_to_strength: Annotated[float, Field(ge=0, le=1), Widget(step=0.01)] = 1.0,
) -> Conditioning:
    """Mix the encoded texts themselves: to·strength + from·(1 − strength); only the first of `from` is used."""
    from nodes.maths.conditioning import mix

    source = conditioning_from.prompts[0]
    _refuse_unlike(conditioning_to, source)
    return Conditioning(
        tuple(
            replace(
                prompt,
                tokens=mix(prompt.tokens, source.tokens, conditioning_to_strength),
                pooled=source.pooled
                if prompt.pooled is None or source.pooled is None
                else prompt.pooled * conditioning_to_strength + source.pooled * (1 - conditioning_to_strength),
            )
            for prompt in conditioning_to.prompts
        )
    )


@node("ConditioningConcat", category="conditioning")
def concat(conditioning_to: Conditioning, conditioning_from: Conditioning) -> Conditioning:
    """Append the tokens of one prompt to another's; only the first of `from` is used."""
    from nodes.maths.conditioning import append

    source = conditioning_from.prompts[0]
    _refuse_unlike(conditioning_to, source)
    return Conditioning(
        tuple(replace(prompt, tokens=append(prompt.tokens, source.tokens)) for prompt in conditioning_to.prompts)
    )


@node("ConditioningZeroOut", category="advanced/conditioning")
def zero_out(conditioning: Conditioning) -> Conditioning:
    """All states zero: neither a prompt nor an empty one."""
    return Conditioning(
        tuple(
            replace(prompt, tokens=prompt.tokens * 0, pooled=None if prompt.pooled is None else prompt.pooled * 0)
            for prompt in conditioning.prompts
        )
    )


def _refuse_unlike(conditioning: Conditioning, other: Prompt) -> None:
    """Only what text encoders of one kind made can be mixed."""
    for prompt in conditioning.prompts:
        if prompt.tokens.shape[-1] != other.tokens.shape[-1]:
            raise WrongPrompt(prompt.tokens.shape[-1], other.tokens.shape[-1])
