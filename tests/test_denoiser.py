from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from nodes.denoiser import guided_denoiser, sampling_of
from nodes.models import DenoiseNetwork, ModelPool
from nodes.values import Conditioning, Model, Prompt, Weights

MODEL = Model(Weights(Path("none"), "toy", "toy"))


class ToyPool(ModelPool):
    """A pool whose network adds the mean of the text to the latent, and notes how it is asked."""

    def __init__(self) -> None:
        super().__init__(device="cpu")
        self.passes: list[int] = []

    def denoise_network(self, model: Model) -> DenoiseNetwork:
        def predict(x: Tensor, timestep: Tensor, context: Tensor, *told: object) -> Tensor:
            self.passes.append(len(x))
            return x + context.mean(dim=(1, 2))[:, None, None, None]

        return predict


def prompts(*values: float, length: int = 3, strength: float = 1.0) -> Conditioning:
    return Conditioning(tuple(Prompt(torch.full((1, length, 2), value), strength=strength) for value in values))


def alone(pool: ToyPool, value: float) -> Callable[[Tensor, float], Tensor]:
    return guided_denoiser(pool, MODEL, prompts(value), None, 1.0, 2)


X = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))


def test_guidance_is_the_formula_in_one_pass_of_the_network():
    pool = ToyPool()
    guided = guided_denoiser(pool, MODEL, prompts(1.0), prompts(-2.0), 5.0, 2)(X, 3.0)
    assert pool.passes == [4]
    cond, uncond = alone(pool, 1.0)(X, 3.0), alone(pool, -2.0)(X, 3.0)
    torch.testing.assert_close(guided, uncond + 5.0 * (cond - uncond))


def test_scale_1_does_not_evaluate_the_negative_prompt():
    pool = ToyPool()
    guided_denoiser(pool, MODEL, prompts(1.0), prompts(-2.0), 1.0, 2)(X, 3.0)
    assert pool.passes == [2]


def test_combined_prompts_are_averaged_by_strength():
    pool = ToyPool()
    mixed = Conditioning((*prompts(1.0).prompts, *prompts(4.0, strength=3.0).prompts))
    expected = (alone(pool, 1.0)(X, 3.0) + 3.0 * alone(pool, 4.0)(X, 3.0)) / 4.0
    torch.testing.assert_close(guided_denoiser(pool, MODEL, mixed, None, 1.0, 2)(X, 3.0), expected)


def test_prompts_of_two_lengths_share_a_pass_when_repeated():
    pool = ToyPool()
    guided_denoiser(pool, MODEL, prompts(1.0, length=2), prompts(1.0, length=4), 3.0, 2)(X, 3.0)
    assert pool.passes == [4]


def test_prompts_whose_lengths_have_no_small_multiple_get_passes_of_their_own():
    pool = ToyPool()
    guided_denoiser(pool, MODEL, prompts(1.0, length=7), prompts(1.0, length=11), 3.0, 2)(X, 3.0)
    assert pool.passes == [2, 2]


def test_the_networks_output_is_read_as_its_prediction_type_says():
    pool = ToyPool()
    sampling = sampling_of(MODEL)
    scaled = sampling.scale_input(X, 3.0)
    torch.testing.assert_close(alone(pool, 1.0)(X, 3.0), X - 3.0 * (scaled + 1.0))
