import pytest
import torch
from torch import Tensor

from nodes import text
from nodes.model_errors import WrongPrompt
from nodes.values import Conditioning, Prompt


def conditioning(*lengths: int, pooled: bool = True) -> Conditioning:
    """Prompts of these numbers of tokens, all different."""
    generator = torch.Generator().manual_seed(sum(lengths))
    return Conditioning(
        tuple(
            Prompt(
                torch.randn(1, length, 4, generator=generator),
                torch.randn(1, 4, generator=generator) if pooled else None,
            )
            for length in lengths
        )
    )


def tokens(of: Conditioning) -> list[Tensor]:
    return [prompt.tokens for prompt in of.prompts]


def test_combining_keeps_both_prompts_in_order():
    a, b = conditioning(3), conditioning(5, 7)
    assert text.combine(a, b).prompts == (*a.prompts, *b.prompts)


def test_averaging_is_a_weighted_sum():
    a, b = conditioning(4), conditioning(4, pooled=True)
    mixed = text.average(a, b, 0.25)
    torch.testing.assert_close(tokens(mixed)[0], 0.25 * tokens(a)[0] + 0.75 * tokens(b)[0])


def test_averaging_cuts_or_pads_the_second_to_the_first():
    a, short, long = conditioning(4), conditioning(2), conditioning(9)
    assert tokens(text.average(a, long, 0.5))[0].shape == (1, 4, 4)
    torch.testing.assert_close(tokens(text.average(a, short, 0.5))[0][:, 2:], 0.5 * tokens(a)[0][:, 2:])


def test_averaging_without_a_pooled_state_takes_the_others():
    mixed = text.average(conditioning(3, pooled=False), b := conditioning(3), 0.5)
    assert mixed.prompts[0].pooled is b.prompts[0].pooled


def test_concatenating_appends_tokens_to_every_prompt():
    joined = text.concat(conditioning(3, 5), conditioning(2))
    assert [each.shape[1] for each in tokens(joined)] == [5, 7]


def test_zeroing_leaves_only_zeros():
    (prompt,) = text.zero_out(conditioning(3)).prompts
    assert prompt.pooled is not None and not prompt.tokens.any() and not prompt.pooled.any()


def test_prompts_of_different_encoders_are_not_mixed():
    wider = Conditioning((Prompt(torch.zeros(1, 4, 6)),))
    for mixing in (text.average, text.concat):
        with pytest.raises(WrongPrompt, match="of width 6, where 4 is needed"):
            mixing(conditioning_to=conditioning(4), conditioning_from=wider)
