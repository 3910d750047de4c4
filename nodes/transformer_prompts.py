"""Prompts for diffusion transformers: how strongly those that were distilled from guided ones follow them."""

from dataclasses import replace
from typing import Annotated

from graph.literals import Between
from graph.node import node
from nodes.values import Conditioning

Guidance = Annotated[float, Between(0, 100, "How strongly the network is told to follow the prompt.", step=0.1)]


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
