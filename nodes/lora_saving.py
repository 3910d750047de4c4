"""Save what one network has learned beyond another as a LoRA."""

from typing import Annotated, Literal

from pydantic import Field

from graph.folders import Folders
from graph.literals import Widget
from graph.node import node
from graph.values import INJECTED
from nodes.documents import Documents
from nodes.model_saving import SavedModels, write_tensors
from nodes.saving import FilenamePrefix
from nodes.values import Clip, Model


@node("LoraSave", category="_for_testing", title="Extract and Save Lora", lane="cpu", stage="experimental")
def save_lora(
    filename_prefix: FilenamePrefix = "loras/ComfyUI_extracted_lora",
    rank: Annotated[
        int, Field(ge=1, le=4096, description="The more, the nearer to the whole difference."), Widget(step=1)
    ] = 8,
    lora_type: Annotated[
        Literal["standard", "full_diff"], Field(description="full_diff: the differences themselves, whatever the rank.")
    ] = "standard",
    bias_diff: Annotated[bool, Field(description="Keep what biases and norms have learned, too.")] = True,
    model_diff: Model | None = None,
    text_encoder_diff: Clip | None = None,
    folders: Folders = INJECTED,
    documents: Documents = INJECTED,
) -> SavedModels:
    """Save the difference that ModelMergeSubtract or CLIPMergeSubtract gives as a LoRA, for LoraLoader."""
    from nodes.lora_files import lora_tensors

    if model_diff is None and text_encoder_diff is None:
        raise ValueError(
            "there is nothing to save: connect model_diff or text_encoder_diff, such as ModelMergeSubtract"
        )
    whole = lora_type == "full_diff"

    def tensors():
        return lora_tensors(model_diff, text_encoder_diff, None if whole else rank, biases=bias_diff)

    return SavedModels((write_tensors(tensors, filename_prefix, folders, documents, {}),))
