"""What prompts of one side have and those of another take over: pictures that steer, phrases in boxes."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from nodes.values import Conditioning, Prompt


def sharing(
    conditioning: Conditioning,
    positive: Conditioning,
    shares: Callable[[Prompt], bool],
    has: Callable[[Prompt], bool],
    given: Callable[[Prompt, Prompt], Prompt],
) -> Conditioning:
    """The prompts of another side with what the positive ones share, if none of them has any already.

    Those of each positive prompt go to the next of the others; when all have some, copies take the rest. Prompts that
    have an area, be it that of their mask, take no part.

    Args:
        given: a prompt with what another one has.
    """
    shared = [each for each in positive.prompts if shares(each) and not _is_placed(each)]
    free = deque(at for at, each in enumerate(conditioning.prompts) if not _is_placed(each))
    if not shared or not free or any(has(conditioning.prompts[at]) for at in free):
        return conditioning
    prompts = list(conditioning.prompts)
    for each in shared:
        at = free[0]
        free.rotate(-1)
        taking = given(prompts[at], each)
        if has(prompts[at]):
            prompts.append(taking)
        else:
            prompts[at] = taking
    return Conditioning(tuple(prompts))


def _is_placed(prompt: Prompt) -> bool:
    return prompt.area is not None or prompt.area_from_mask


def sharing_boxes(conditioning: Conditioning, positive: Conditioning) -> Conditioning:
    """The prompts of another side, told what is where as the positive ones are, if none of them is told already."""
    return sharing(conditioning, positive, _is_grounded, _is_grounded, _grounded_as)


def _is_grounded(prompt: Prompt) -> bool:
    return prompt.grounding is not None


def _grounded_as(prompt: Prompt, other: Prompt) -> Prompt:
    return replace(prompt, grounding=other.grounding)
