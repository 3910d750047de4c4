"""Mix two models of one family with a ratio for every block, by the blocks' names in the original layout.

The longest name that a weight's begins with counts; where none does, the first.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated

from graph.node import Named, node
from nodes.merging import Ratio, merged, mixture
from nodes.values import Model


def _names(inputs: int, outputs: int, end: str) -> Iterator[str]:
    yield from ("time_embed.", "label_emb.")
    for part, count in (("input_blocks", inputs), ("middle_block", 3), ("output_blocks", outputs)):
        yield from (f"{part}.{number}{end}" for number in range(count))
    yield "out."


SD_BLOCKS = Named(tuple(_names(12, 12, ".")), 1.0)
SDXL_BLOCKS = Named(tuple(_names(9, 9, "")), 1.0)


def _sd3_names(blocks: int) -> Iterator[str]:
    yield from ("pos_embed.", "x_embedder.", "context_embedder.", "y_embedder.", "t_embedder.")
    yield from (f"joint_blocks.{number}." for number in range(blocks))
    yield "final_layer."


def _flux_names() -> Iterator[str]:
    yield from ("img_in.", "time_in.", "guidance_in", "vector_in.", "txt_in.")
    for kind, count in (("double", 19), ("single", 38)):
        yield from (f"{kind}_blocks.{number}." for number in range(count))
    yield "final_layer."


SD3_BLOCKS = Named(tuple(_sd3_names(24)), 1.0)
SD35_BLOCKS = Named(tuple(_sd3_names(38)), 1.0)
FLUX_BLOCKS = Named(tuple(_flux_names()), 1.0)


@node("ModelMergeSD1", category="advanced/model_merging/model_specific")
def merge_sd1(model1: Model, model2: Model, **ratios: Annotated[Ratio, SD_BLOCKS]) -> Model:
    """A mixture of two models of Stable Diffusion 1, block by block: model1·ratio + model2·(1 − ratio)."""
    return _by_block(model1, model2, SD_BLOCKS, ratios)


@node("ModelMergeSD2", category="advanced/model_merging/model_specific")
def merge_sd2(model1: Model, model2: Model, **ratios: Annotated[Ratio, SD_BLOCKS]) -> Model:
    """A mixture of two models of Stable Diffusion 2, block by block: model1·ratio + model2·(1 − ratio)."""
    return _by_block(model1, model2, SD_BLOCKS, ratios)


@node("ModelMergeSDXL", category="advanced/model_merging/model_specific")
def merge_sdxl(model1: Model, model2: Model, **ratios: Annotated[Ratio, SDXL_BLOCKS]) -> Model:
    """A mixture of two models of SDXL, block by block: model1·ratio + model2·(1 − ratio)."""
    return _by_block(model1, model2, SDXL_BLOCKS, ratios)


@node("ModelMergeSD3_2B", category="advanced/model_merging/model_specific")
def merge_sd3(model1: Model, model2: Model, **ratios: Annotated[Ratio, SD3_BLOCKS]) -> Model:
    """A mixture of two models of Stable Diffusion 3, block by block: model1·ratio + model2·(1 − ratio)."""
    return _by_block(model1, model2, SD3_BLOCKS, ratios)


@node("ModelMergeSD35_Large", category="advanced/model_merging/model_specific")
def merge_sd35(model1: Model, model2: Model, **ratios: Annotated[Ratio, SD35_BLOCKS]) -> Model:
    """A mixture of two large models of Stable Diffusion 3.5, block by block: model1·ratio + model2·(1 − ratio)."""
    return _by_block(model1, model2, SD35_BLOCKS, ratios)


@node("ModelMergeFlux1", category="advanced/model_merging/model_specific")
def merge_flux(model1: Model, model2: Model, **ratios: Annotated[Ratio, FLUX_BLOCKS]) -> Model:
    """A mixture of two models of Flux, block by block: model1·ratio + model2·(1 − ratio)."""
    return _by_block(model1, model2, FLUX_BLOCKS, ratios)


def _by_block(model1: Model, model2: Model, blocks: Named, ratios: Mapping[str, float]) -> Model:
    whole = {name: 1.0 for name in blocks.names} | dict(ratios)
    return merged(model1, model2, mixture(*whole.items()))
