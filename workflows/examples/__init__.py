"""The example workflows as Python. Each function calls nodes; inside a builder that gives a workflow.

    python -m workflows.examples steps                  # run it; the pictures go to ./output
    python -m workflows.examples steps --save my.json   # or keep it as a workflow file
    python -m workflows.examples --save-all workflows   # write every example's JSON

The JSON files beside this package are these functions, saved.
"""

from collections.abc import Callable

from graph.builder import WorkflowBuilder
from workflows.examples import choices, pictures, places, seeing, stages

EXAMPLES: dict[str, Callable[[], None]] = {
    "text_to_image": pictures.text_to_image,
    "image_to_image": pictures.image_to_image,
    "inpaint": places.inpaint,
    "outpaint": places.outpaint,
    "handwritten_digits": pictures.handwritten_digits,
    "steps": stages.steps,
    "forward_diffusion": stages.forward_diffusion_sheet,
    "guidance": stages.guidance,
    "prompt_switch": choices.prompt_switch,
    "mask_blend": places.mask_blend,
    "areas": places.areas,
    "two_pass": pictures.two_pass,
    "switch": choices.switch_branches,
    "for_each": choices.for_each_line,
    "while": choices.while_loop,
    "rank_by_prompt": seeing.best_of_batch,
    "guided_digits": seeing.guided_digits,
    "replace_object": seeing.replace_object,
}


def build(name: str) -> WorkflowBuilder:
    """An example as a workflow."""
    with WorkflowBuilder() as workflow:
        EXAMPLES[name]()
    return workflow
