"""How a model's network computes: in which number format, and whether it is compiled."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from graph.node import node
from nodes.network_patches import Compiled
from nodes.unet_patches import patched_by
from nodes.values import Model


@node("ModelComputeDtype", category="advanced/debug/model")
def compute_in(
    model: Model,
    dtype: Annotated[
        Literal["default", "fp32", "fp16", "bf16"], Field(description="default: what --precision says.")
    ] = "default",
) -> Model:
    """Choose the number format of one model's network."""
    return replace(model, precision=None if dtype == "default" else dtype)


@node("TorchCompileModel", category="_for_testing", stage="experimental")
def compile_model(
    model: Model,
    backend: Annotated[
        Literal["inductor", "cudagraphs"],
        Field(description="inductor writes kernels of its own; cudagraphs replays those of torch, on a GPU."),
    ] = "inductor",
) -> Model:
    """Compile a model's network: its first step at every size takes long, which the log tells, the others less."""
    return patched_by(model, Compiled(backend))
