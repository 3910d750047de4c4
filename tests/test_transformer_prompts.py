import torch

from nodes import transformer_prompts
from nodes.values import Conditioning, Prompt

PROMPTS = Conditioning((Prompt(torch.ones(1, 3, 4)), Prompt(torch.zeros(1, 2, 4), guidance=7.0)))


def guidance(of: Conditioning) -> list[float | None]:
    return [prompt.guidance for prompt in of.prompts]


def test_prompts_state_the_guidance_that_flux_is_told_without_a_node():
    assert guidance(PROMPTS) == [3.5, 7.0]


def test_every_prompt_states_the_chosen_guidance_and_keeps_its_states():
    stated = transformer_prompts.state_guidance(PROMPTS, 2.5)
    assert guidance(stated) == [2.5, 2.5]
    assert [prompt.tokens for prompt in stated.prompts] == [prompt.tokens for prompt in PROMPTS.prompts]


def test_a_network_need_not_be_told_a_guidance():
    assert guidance(transformer_prompts.leave_out_guidance(PROMPTS)) == [None, None]
