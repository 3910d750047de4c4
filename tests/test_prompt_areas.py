"""Prompts for a part of the picture, or for a part of the sampling."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nodes.denoiser import guided_denoiser, sampling_of
from nodes.maths.regions import Region, around, clipped, feathered
from nodes.models import DenoiseNetwork, ModelPool
from nodes.prompt_areas import set_area, set_area_percentage, set_area_strength, set_mask, set_timestep_range
from nodes.text import combine
from nodes.values import Conditioning, Mask, Model, Prompt
from tests.test_denoiser import MODEL, prompts

HEIGHT, WIDTH = 24, 32
X = torch.randn(2, 4, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


class Recorder(ModelPool):
    """A pool whose network adds the mean of the text to the latent, and notes the shapes that it is shown."""

    def __init__(self) -> None:
        super().__init__(device="cpu")
        self.shown: list[tuple[int, ...]] = []

    def denoise_network(self, model: Model) -> DenoiseNetwork:
        def predict(x: Tensor, timestep: Tensor, context: Tensor, *told: object) -> Tensor:
            self.shown.append(tuple(x.shape))
            return x + context.mean(dim=(1, 2))[:, None, None, None]

        return predict


def denoised(
    positive: Conditioning, negative: Conditioning | None = None, cfg: float = 1.0, sigma: float = 3.0
) -> Tensor:
    return guided_denoiser(Recorder(), MODEL, positive, negative, cfg, 2)(X, sigma)


def shown(
    positive: Conditioning, negative: Conditioning | None = None, cfg: float = 1.0, sigma: float = 3.0
) -> list[tuple[int, ...]]:
    pool = Recorder()
    guided_denoiser(pool, MODEL, positive, negative, cfg, 2)(X, sigma)
    return pool.shown


ONE, FOUR = prompts(1.0), prompts(4.0)
BOTH = combine(ONE, FOUR)


def test_an_area_of_everything_changes_nothing():
    assert torch.equal(denoised(set_area_percentage(ONE)), denoised(ONE))


def test_the_network_sees_the_area_alone():
    assert shown(set_area(ONE, width=64, height=128)) == [(2, 4, 16, 8)]


def test_a_prompt_counts_in_its_area_alone():
    corner = set_area(FOUR, width=128, height=96, x=0, y=0, strength=3.0)
    weight = torch.zeros(HEIGHT, WIDTH)
    weight[:12, :16] = 3.0
    weight[:12, 12:16] *= torch.tensor([4, 3, 2, 1]) / 4  # a quarter of the width, as that is below 8
    weight[9:12, :16] *= torch.tensor([3, 2, 1])[:, None] / 3
    expected = (denoised(ONE) + weight * denoised(FOUR)) / (1 + weight)
    torch.testing.assert_close(denoised(combine(ONE, corner)), expected)


def test_what_no_prompt_counts_for_is_zero():
    left = denoised(set_area_percentage(ONE, width=0.5))
    assert left[..., WIDTH // 2 :].abs().max() == 0
    torch.testing.assert_close(left[..., : WIDTH // 2], denoised(ONE)[..., : WIDTH // 2])


def test_areas_of_one_size_share_a_pass():
    halves = combine(set_area_percentage(ONE, width=0.5), set_area_percentage(FOUR, width=0.5, x=0.5))
    assert shown(halves) == [(4, 4, HEIGHT, WIDTH // 2)]


def test_an_area_beyond_the_picture_is_cut_or_left_out():
    assert shown(set_area(ONE, width=512, height=512, x=128, y=64)) == [(2, 4, 16, 16)]
    assert shown(combine(ONE, set_area(FOUR, x=8 * WIDTH))) == [(2, 4, HEIGHT, WIDTH)]


def test_a_mask_weighs_pixel_by_pixel():
    mask = torch.rand(1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    masked = set_mask(set_area_strength(FOUR, 2.0), Mask(mask), strength=0.5)
    expected = (denoised(ONE) + mask * denoised(FOUR)) / (1 + mask)
    torch.testing.assert_close(denoised(combine(ONE, masked)), expected)


def test_a_mask_of_the_pictures_size_is_brought_to_the_latents():
    mask = torch.zeros(1, 8 * HEIGHT, 8 * WIDTH)
    mask[..., : 4 * WIDTH] = 1
    left = denoised(set_mask(ONE, Mask(mask)))
    assert left[..., WIDTH // 2 :].abs().max() == 0
    torch.testing.assert_close(left[..., : WIDTH // 2], denoised(ONE)[..., : WIDTH // 2])


def test_the_network_sees_the_rectangle_around_a_mask_if_asked():
    mask = torch.zeros(1, HEIGHT, WIDTH)
    mask[0, 4:16, 5] = 1
    assert shown(set_mask(ONE, Mask(mask), set_cond_area="mask bounds")) == [(2, 4, 12, 8)]
    assert shown(set_mask(ONE, Mask(mask))) == [(2, 4, HEIGHT, WIDTH)]


def test_masks_of_a_batch_are_each_for_one_picture():
    masks = torch.stack([torch.ones(HEIGHT, WIDTH), torch.zeros(HEIGHT, WIDTH)])
    first, second = denoised(set_mask(ONE, Mask(masks)))
    assert first.abs().min() > 0 and second.abs().max() == 0


def test_a_prompt_counts_in_its_time_alone():
    sampling = sampling_of(MODEL)
    middle = sampling.percent_to_sigma(0.5)
    switched = combine(set_timestep_range(ONE, end=0.5), set_timestep_range(FOUR, start=0.5))
    for sigma, only in ((sampling.sigma_max, ONE), (middle * 1.01, ONE), (middle * 0.99, FOUR), (0.03, FOUR)):
        assert torch.equal(denoised(switched, sigma=sigma), denoised(only, sigma=sigma))
    torch.testing.assert_close(denoised(switched, sigma=middle), denoised(BOTH, sigma=middle))


def test_a_prompt_out_of_its_time_is_not_evaluated():
    assert shown(combine(ONE, set_timestep_range(FOUR, start=0.9))) == [(2, 4, HEIGHT, WIDTH)]
    assert shown(set_timestep_range(FOUR, start=0.9)) == []


def test_guidance_away_from_a_prompt_is_made_in_the_same_area():
    left = set_area_percentage(ONE, width=0.5)
    assert shown(left, FOUR, cfg=2.0) == [(4, 4, HEIGHT, WIDTH // 2), (2, 4, HEIGHT, WIDTH)]
    both = denoised(left, FOUR, cfg=2.0)[..., : WIDTH // 2]
    expected = denoised(FOUR) + 2 * (denoised(ONE) - denoised(FOUR))
    torch.testing.assert_close(both[..., :8], expected[..., :8])


def test_the_smallest_prompt_around_an_area_is_its_partner():
    quarter = set_area_percentage(ONE, width=0.25, height=0.25)
    negative = combine(prompts(7.0), set_area_percentage(FOUR, width=0.5, height=0.5))
    sizes = sorted(shape[2:] for shape in shown(quarter, negative, cfg=2.0))
    assert sizes == [(6, 8), (12, 16), (24, 32)]
    guided = denoised(quarter, negative, cfg=2.0)
    unguided = denoised(quarter, combine(prompts(7.0), set_area_percentage(prompts(7.0), 0.5, 0.5)), cfg=2.0)
    assert not torch.allclose(guided[..., :6, :8], unguided[..., :6, :8])


def test_a_partner_of_the_same_area_is_enough():
    left = set_area_percentage(ONE, width=0.5)
    assert shown(left, set_area_percentage(FOUR, width=0.5), cfg=2.0) == [(4, 4, HEIGHT, WIDTH // 2)]


REGIONS = st.builds(Region, *(st.integers(-20, 40) for _ in range(2)), *(st.integers(1, 40) for _ in range(2)))


@given(REGIONS)
def test_what_is_cut_lies_inside_and_stays_itself(region: Region):
    inside = clipped(region, HEIGHT, WIDTH)
    if inside is None:
        assert region.top not in range(1 - region.height, HEIGHT) or region.left not in range(1 - region.width, WIDTH)
    else:
        assert region.contains(inside) and Region(0, 0, HEIGHT, WIDTH).contains(inside)
        assert clipped(inside, HEIGHT, WIDTH) == inside
        assert feathered(inside, HEIGHT, WIDTH).shape[-2:] == inside.size
        assert 0 < feathered(inside, HEIGHT, WIDTH).min() <= feathered(inside, HEIGHT, WIDTH).max() <= 1


@given(st.sets(st.tuples(st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1)), max_size=5))
def test_the_rectangle_around_a_mask_holds_all_of_it(marked: set[tuple[int, int]]):
    mask = torch.zeros(1, HEIGHT, WIDTH)
    for row, column in marked:
        mask[0, row, column] = 0.1
    region = around(mask)
    assert region.of(mask).sum() == mask.sum()
    assert min(region.size) >= 8 and Region(0, 0, HEIGHT, WIDTH).contains(region)


def test_every_prompt_of_a_conditioning_is_meant():
    assert all(prompt.area is not None for prompt in set_area(BOTH).prompts)
    assert all(prompt.mask is not None for prompt in set_mask(BOTH, Mask(torch.ones(1, 4, 4))).prompts)
    assert all(prompt.end < 1 for prompt in set_timestep_range(BOTH, 0.1, 0.9).prompts)


def test_the_bytes_of_a_mask_are_counted():
    prompt = Prompt(torch.zeros(1, 2, 3), mask=torch.zeros(1, 4, 4))
    assert prompt.nbytes == 4 * (6 + 16)
