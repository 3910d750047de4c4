"""What every sampler promises: a pure step that can be stopped and gone on from anywhere; and some formulas."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nodes.maths.model_sampling import DiscreteSampling
from nodes.maths.samplers import SAMPLERS, State, advance, settings_for
from nodes.maths.samplers.adams_bashforth import TIME, lagrange_integrals
from nodes.maths.samplers.dpm_solver import fast_orders
from nodes.maths.schedules import DROP_PENULTIMATE, sigmas_for
from tests.steps import SHAPE, begin, denoise, draws, floats, full_noise, no_noise, start, states

STOCHASTIC = [name for name, spec in SAMPLERS.items() if spec.noise != "none"]
OWN_LEVELS = ["dpm_fast", "dpm_adaptive"]
FALLING = [4.0, 3.0, 2.5, 2.0, 1.5, 1.0, 0.5, 0.0]


def levels(name: str, schedule: str = "karras", steps: int = 8) -> list[float]:
    return floats(sigmas_for(DiscreteSampling(), schedule, steps, 1.0, name))


# --- purity ---


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_frozen_state_continues_bit_for_bit(name: str) -> None:
    sigmas = levels(name)
    whole = states(name, start(sigmas[0]), sigmas, full_noise(name, sigmas))
    for i in range(1, len(whole)):
        before = replace(whole[i - 1], ahead=tuple(sigmas[i + 2 :]))
        again = advance(name, before, denoise, sigmas[i], sigmas[i + 1], full_noise(name, sigmas))
        assert torch.equal(again.x, whole[i].x)
        assert again.draws == whole[i].draws


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_leaves_its_inputs_as_they_were(name: str) -> None:
    sigmas = levels(name, "normal", 6)
    state = begin(name, x := start(sigmas[0]), sigmas)
    for sigma, sigma_next in pairwise(sigmas):
        before = [state.x.clone(), *(old.clone() for old in state.history)]
        after = advance(name, state, denoise, sigma, sigma_next, full_noise(name, sigmas))
        assert all(map(torch.equal, before, [state.x, *state.history]))
        state = after
    assert torch.equal(x, start(sigmas[0]))


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_further_levels_are_looked_at_than_the_table_tells(name: str) -> None:
    """Nor any that were not asked for: what lies behind them may change without changing the step."""
    seen = SAMPLERS[name].lookahead
    state = states(name, start(4.0), FALLING[:3], draws())[-1]
    ends = [
        advance(name, replace(state, ahead=(*FALLING[4 : 4 + seen], *behind)), denoise, 2.5, 2.0, draws()).x
        for behind in ((), (0.4, 0.3), (0.1, 0.0))
    ]
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "dpm_adaptive"])
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    """Of the others: the error that steers `dpm_adaptive` is that of the whole batch."""
    sigmas = levels(name)
    noise = full_noise(name, sigmas)
    together = states(name, start(sigmas[0]), sigmas, noise)[-1].x
    alone = states(name, start(sigmas[0])[1:], sigmas, lambda draw, a, b: noise(draw, a, b)[1:])[-1].x
    torch.testing.assert_close(alone, together[1:])


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "dpm_adaptive"])
def test_latents_may_live_on_another_device_than_noise_and_sigmas(name: str) -> None:
    """The meta device computes shapes only; mixing it with the CPU in the wrong place is an error there as on a GPU.

    `dpm_adaptive` looks at numbers, which are not there.
    """
    visited = states(name, start(8.0).to("meta"), [8.0, 4.0, 2.0, 1.0, 0.5, 0.0], draws())
    assert visited[-1].x.shape == SHAPE
    assert visited[-1].x.device.type == "meta"


# --- the ends of the contract ---


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in OWN_LEVELS])
def test_the_last_step_ends_on_the_prediction(name: str) -> None:
    visited = states(name, start(4.0), FALLING, draws())
    assert visited[-1].denoised is not None
    assert visited[-1].draws == visited[-2].draws
    # UniPC ends at 0.001, where a five hundredth of the last step's start is left.
    tolerance = 0.003 if name.startswith("uni_pc") else 1e-6
    torch.testing.assert_close(visited[-1].x, visited[-1].denoised, rtol=tolerance, atol=2 * tolerance)


@pytest.mark.parametrize("name", OWN_LEVELS)
def test_samplers_with_levels_of_their_own_end_above_0(name: str) -> None:
    """At the last level above it, where the noise of that level is left over."""
    before, last = states(name, start(4.0), FALLING, draws())[-2:]
    assert torch.equal(last.x, before.x)
    assert last.denoised is not None
    assert not torch.allclose(last.x, last.denoised, atol=0.01)


def evaluated(name: str) -> list[int]:
    """How often the network is asked in each step."""
    asked = list[float]()

    def counted(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return denoise(x, sigma)

    counts, state = list[int](), begin(name, start(4.0), FALLING)
    for i, (sigma, sigma_next) in enumerate(pairwise(FALLING)):
        asked.clear()
        state = advance(name, replace(state, ahead=tuple(FALLING[i + 2 :])), counted, sigma, sigma_next, draws())
        counts.append(len(asked))
    return counts


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in OWN_LEVELS])
def test_the_table_tells_the_evaluations_of_a_step(name: str) -> None:
    assert evaluated(name)[2] == SAMPLERS[name].evaluations


def test_dpm_fast_takes_as_many_evaluations_as_there_are_steps() -> None:
    assert sum(evaluated("dpm_fast")) == len(FALLING) - 1


def test_dpm_adaptive_asks_in_threes_but_for_what_it_repeats() -> None:
    assert sum(evaluated("dpm_adaptive")) >= 6
    assert evaluated("dpm_adaptive")[-1] == 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_table_tells_whether_noise_is_drawn(name: str) -> None:
    visited = states(name, start(4.0), FALLING[:3], draws(), settings={"high": 10.0} if "sa_" in name else None)
    assert (visited[-1].draws > 0) == (SAMPLERS[name].noise != "none")


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", ["simple", "beta", "ddim_uniform"])
def test_more_steps_than_timesteps_stay_finite(name: str, schedule: str) -> None:
    sigmas = floats(sigmas_for(DiscreteSampling(), schedule, 1500, 1.0, name)[-40:])
    assert states(name, start(sigmas[0]), sigmas, draws())[-1].x.isfinite().all()


# The weights of heunpp2 are shares of the first level, which has to be the highest.
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in STOCHASTIC and name != "heunpp2"])
def test_without_noise_a_picture_can_be_followed_back_to_its_noise_and_returns(name: str) -> None:
    falling = levels("euler", steps=60)[:-1]
    noisy = states(name, torch.ones(SHAPE), falling[::-1])[-1].x
    back = states(name, noisy, falling)[-1].x
    assert noisy.std() < 1e-3 < noisy.abs().mean() / 10
    assert (back - 1.0).abs().max() < 0.12


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_stochastic_step_cannot_rise(name: str) -> None:
    with pytest.raises(ValueError, match="cannot step up"):
        advance(name, State(start(1.0)), denoise, 1.0, 2.0, draws())


def test_a_bad_step_is_refused() -> None:
    for sigma, sigma_next in [(0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0), (1.0, math.nan), (1.0, -1.0)]:
        with pytest.raises(ValueError, match="expected a positive sigma"):
            advance("euler", State(start(1.0)), denoise, sigma, sigma_next, no_noise)
    with pytest.raises(ValueError, match="unknown sampler 'eular'; expected one of euler"):
        advance("eular", State(start(1.0)), denoise, 1.0, 0.5, no_noise)


def test_a_network_that_gives_no_numbers_does_not_hold_dpm_adaptive_for_ever() -> None:
    with pytest.raises(ValueError, match="no step from sigma 4 is short enough"):
        states("dpm_adaptive", start(4.0), FALLING, draws(), lambda x, sigma: x * math.nan)


def test_the_table_is_in_the_order_of_the_reference() -> None:
    assert " ".join(SAMPLERS) == (
        "euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 dpm_2 dpm_2_ancestral lms dpm_fast "
        "dpm_adaptive dpmpp_2s_ancestral dpmpp_2s_ancestral_cfg_pp dpmpp_sde dpmpp_sde_gpu dpmpp_2m dpmpp_2m_cfg_pp "
        "dpmpp_2m_sde dpmpp_2m_sde_gpu dpmpp_2m_sde_heun dpmpp_2m_sde_heun_gpu dpmpp_3m_sde dpmpp_3m_sde_gpu ddpm lcm "
        "ipndm ipndm_v deis res_multistep res_multistep_cfg_pp res_multistep_ancestral res_multistep_ancestral_cfg_pp "
        "gradient_estimation gradient_estimation_cfg_pp er_sde seeds_2 seeds_3 sa_solver sa_solver_pece ddim uni_pc "
        "uni_pc_bh2"
    )
    assert len(SAMPLERS) == 42


def test_samplers_that_leave_out_the_penultimate_level_are_those_of_the_schedules() -> None:
    assert {name for name, spec in SAMPLERS.items() if spec.drop_penultimate} == DROP_PENULTIMATE


# --- formulas ---


def test_weights_of_slopes_at_equal_distances_are_those_of_adams_and_bashforth() -> None:
    expected = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}
    for order, weights in expected.items():
        assert lagrange_integrals([5.0 + k for k in range(order)], 5.0, 4.0) == pytest.approx([-w for w in weights])


def test_ipndm_is_ipndm_v_where_the_levels_are_evenly_apart() -> None:
    even = [float(sigma) for sigma in range(12, -1, -1)]
    ours, theirs = (states(name, start(12.0), even)[-1].x for name in ("ipndm", "ipndm_v"))
    torch.testing.assert_close(ours, theirs)
    uneven = levels("euler")
    ours, theirs = (states(name, start(uneven[0]), uneven)[-1].x for name in ("ipndm", "ipndm_v"))
    assert not torch.allclose(ours, theirs)


def test_weights_integrate_polynomials_exactly_and_smooth_densities_closely() -> None:
    """Any polynomial through four nodes of degree below 4 is itself."""
    nodes = [9.0, 7.0, 4.0, 3.0]
    for degree in range(4):
        integral = sum(w * n**degree for w, n in zip(lagrange_integrals(nodes, 3.0, 1.0), nodes, strict=True))
        assert integral == pytest.approx((1 - 3.0 ** (degree + 1)) / (degree + 1))
    weights = lagrange_integrals([0.0], 0.0, 3.0, lambda t: 2 * math.exp(2 * (t - 3.0)))
    assert weights == pytest.approx([1 - math.exp(-6.0)])


def test_the_time_of_deis_runs_from_1000th_to_1_and_its_speed_is_the_slope_of_sigma() -> None:
    assert (TIME.of(0.002), TIME.of(80.0)) == (pytest.approx(1e-3), pytest.approx(1.0))
    for sigma in (0.05, 1.0, 14.0):
        step = 1e-5 * sigma
        slope = 2 * step / (TIME.of(sigma + step) - TIME.of(sigma - step))
        assert TIME.speed(TIME.of(sigma)) == pytest.approx(slope, rel=1e-6)


def test_the_slopes_of_deis_count_the_whole_step() -> None:
    times = [TIME.of(sigma) for sigma in (3.0, 4.0, 5.5)]
    weights = lagrange_integrals(times, times[0], TIME.of(2.2), TIME.speed)
    assert sum(weights) == pytest.approx(2.2 - 3.0, rel=1e-9)


def test_ddpm_is_euler_ancestral_in_other_words() -> None:
    """Its posterior is the conditional of the same chain: mean towards the prediction, variance up to the level."""
    sigmas = levels("euler")
    ours, theirs = (states(name, start(sigmas[0]), sigmas, draws())[-1].x for name in ("ddpm", "euler_ancestral"))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_where_more_noise_is_due_than_a_level_holds_euler_ancestral_goes_on_from_the_prediction() -> None:
    visited = states("euler_ancestral", start(4.0), FALLING, draws(), settings={"eta": 10.0})
    assert all(state.denoised is not None and torch.equal(state.x, state.denoised) for state in visited)
    assert visited[-1].draws == 0


def test_where_more_noise_is_due_than_a_level_holds_2s_ancestral_asks_once() -> None:
    asked = list[float]()

    def counted(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return denoise(x, sigma)

    after = states("dpmpp_2s_ancestral", start(4.0), [4.0, 3.0], draws(), counted, {"eta": 10.0})[-1]
    assert asked == [4.0] and after.denoised is not None
    torch.testing.assert_close(after.x, after.denoised + 3.0 * draws()(0, 4.0, 3.0))


def test_gradient_estimation_adds_the_last_change_once() -> None:
    """With gamma 2; with 1 it is Euler's method, with 3/2 that of Adams and Bashforth where levels are even."""
    even = [4.0, 3.0, 2.0, 1.0]
    euler = states("euler", start(4.0), even)[-1].x
    assert torch.equal(states("gradient_estimation", start(4.0), even, settings={"gamma": 1.0})[-1].x, euler)
    second = states("lms", start(4.0), even, settings={"order": 2})[-1].x
    torch.testing.assert_close(states("gradient_estimation", start(4.0), even, settings={"gamma": 1.5})[-1].x, second)


def test_heunpp2_weighs_later_slopes_by_their_share_of_the_first_level() -> None:
    x = start(4.0)

    def slope(x: Tensor, sigma: float) -> Tensor:
        return (x - denoise(x, sigma)) / sigma

    d = slope(x, 4.0)
    x_2 = x - d
    d_2 = slope(x_2, 3.0)
    d_3 = slope(x_2 - 0.5 * d_2, 2.5)
    (first,) = states("heunpp2", x, [4.0, 3.0], beyond=(2.5, 2.0))
    torch.testing.assert_close(first.x, x - (1 - 5.5 / 12) * d - 3 / 12 * d_2 - 2.5 / 12 * d_3)
    (before_last,) = states("heunpp2", x, [4.0, 3.0], beyond=(2.5,))
    torch.testing.assert_close(before_last.x, x - (1 - 3 / 8) * d - 3 / 8 * d_2)
    (last,) = states("heunpp2", x, [4.0, 3.0])
    torch.testing.assert_close(last.x, x - d)


@pytest.mark.parametrize(
    ("evaluations", "orders"), [(1, [1]), (2, [2]), (3, [2, 1]), (7, [3, 3, 1]), (9, [3, 3, 2, 1])]
)
def test_dpm_fast_spends_its_evaluations_in_threes(evaluations: int, orders: list[int]) -> None:
    assert fast_orders(evaluations) == orders
    assert sum(orders) == evaluations


def test_dpm_fast_goes_its_own_way_between_the_ends_of_a_schedule() -> None:
    """Other levels between the same ends, as many of them, lead to the same place."""
    other = [4.0, 3.9, 3.8, 1.2, 0.8, 0.7, 0.5, 0.0]
    ours, theirs = (states("dpm_fast", start(4.0), sigmas)[-1].x for sigmas in (FALLING, other))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde", "dpmpp_sde"])
def test_gpu_is_only_another_name(name: str) -> None:
    sigmas = levels(name)
    ours, theirs = (
        states(each, start(sigmas[0]), sigmas, full_noise(name, sigmas))[-1].x for each in (name, f"{name}_gpu")
    )
    assert torch.equal(ours, theirs)


def test_er_sde_with_eta_1_and_one_stage_is_euler_ancestral() -> None:
    sigmas = levels("euler")
    settings = {"eta": 1.0, "max_stage": 1}
    ours = states("er_sde", start(sigmas[0]), sigmas, draws(), settings=settings)[-1].x
    theirs = states("euler_ancestral", start(sigmas[0]), sigmas, draws())[-1].x
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_sa_solver_adds_noise_in_the_middle_of_the_models_timesteps() -> None:
    sampling = DiscreteSampling()
    band = dict(settings_for("sa_solver", sampling, FALLING))
    assert band == {"high": sampling.sigma(999 * 0.8), "low": sampling.sigma(999 * 0.2)}
    sigmas = levels("sa_solver")
    visited = states("sa_solver", start(sigmas[0]), sigmas, draws())
    drawn = [after.draws - before.draws for before, after in pairwise([State(start(1.0)), *visited])]
    assert drawn == [int(band["low"] <= sigma <= band["high"]) for sigma in sigmas[1:]]
    assert 0 < sum(drawn) < len(drawn)


@pytest.mark.parametrize("tau", [0.0, 1.0])
@pytest.mark.parametrize("name", ["sa_solver", "sa_solver_pece"])
def test_sa_solver_is_exact_for_predictions_along_a_parabola(name: str, tau: float) -> None:
    """In t = -log sigma, which its three predictions determine; against the integral in small parts."""

    def parabola(sigma: float) -> float:
        return 1.0 + 2.0 * math.log(sigma) + 0.5 * math.log(sigma) ** 2

    def given(x: Tensor, sigma: float) -> Tensor:
        return torch.full_like(x, parabola(sigma))

    def step(x: float, sigma: float, sigma_next: float, parts: int = 20000) -> float:
        rate, length = 1 + tau**2, math.log(sigma / sigma_next)
        shares = [(k + 0.5) / parts for k in range(parts)]
        levels = [sigma_next * math.exp(length * share) for share in shares]
        weights = [rate * math.exp(-rate * length * share) * length / parts for share in shares]
        predicted = sum(weight * parabola(level) for weight, level in zip(weights, levels, strict=True))
        return math.exp(-rate * length) * x + predicted

    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    visited = states(
        name, x, [4.0, 3.0, 2.5, 1.5, 1.0, 0.6], lambda draw, a, b: x * 0, given, {"eta": tau}, (0.5, 0.4, 0.3)
    )
    began = visited[3].history[0].item()  # the state the fourth step began at, corrected
    if tau == 0.0:
        assert visited[4].history[0].item() == pytest.approx(step(visited[3].history[0].item(), 1.5, 1.0), rel=1e-6)
    assert visited[3].x.item() == pytest.approx(step(began, 1.5, 1.0), rel=1e-6)
