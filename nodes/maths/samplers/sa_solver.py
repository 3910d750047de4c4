"""SA-Solver: a stochastic Adams method, predictor and corrector, Xue et al. (2023)."""

import math
from collections.abc import Sequence
from dataclasses import replace

from nodes.maths.model_sampling import Latents
from nodes.maths.samplers.adams_bashforth import lagrange_integrals
from nodes.maths.samplers.contract import Denoiser, NoiseSampler, State
from nodes.maths.samplers.terms import combined, step_in_t


def sa_solver(
    state: State,
    denoise: Denoiser,
    sigma: float,
    sigma_next: float,
    noise: NoiseSampler,
    *,
    high: float = math.inf,
    low: float = 0.0,
    eta: float = 1.0,
    s_noise: float = 1.0,
    predictor_order: float = 3,
    corrector_order: float = 4,
    pece: bool = False,
    simple_order_2: bool = False,
) -> State:
    """SA-Solver, Xue et al. (2023), algorithm 1: x is what the predictor says, and the next step corrects it.

    Orders fall towards the end of a schedule at 0, down to 1; what lies ahead tells.

    Args:
        high: steps that end at a level between `high` and `low` add noise, with the paper's tau at `eta`.
        corrector_order: 0 for no correction.
        pece: evaluate once more after the correction.
        simple_order_2: integrate the slope of two predictions as if nothing were forgotten, appendix D.
    """

    def tau(level: float) -> float:
        return eta if low <= level <= high else 0.0

    denoised = denoise(state.x, sigma)
    before, *rest = state.history or (state.x,)
    # The noise of the last step belongs to its correction too; where there was none, none is kept.
    shaken = rest.pop(0) if rest and tau(sigma) * s_noise > 0 else None
    known, levels = [*rest, denoised], [*state.sigmas, sigma]
    remaining = len(state.ahead) if (sigma_next, *state.ahead)[-1] == 0 else len(known)
    x = state.x
    if state.history and corrector_order > 0 and (sigma_next > 0 or pece):
        order = int(min(corrector_order, len(known), remaining + 1))
        x = _adams(before, known, levels, sigma, order, tau(sigma), simple_order_2)
        x = x if shaken is None else x + shaken
        if pece:
            denoised = known[-1] = denoise(x, sigma)
    if sigma_next == 0:
        return replace(state, x=denoised, history=(), sigmas=(), denoised=denoised)
    order = int(min(predictor_order, len(known), remaining))
    further = _adams(x, known, levels, sigma_next, order, tau(sigma_next), simple_order_2)
    # The corrector knows one prediction more than there are now.
    kept = int(max(predictor_order, corrector_order)) - 1
    history, sigmas = known[len(known) - min(kept, len(known)) :], levels[len(levels) - min(kept, len(levels)) :]
    if tau(sigma_next) * s_noise > 0:
        spread = math.sqrt(-math.expm1(-2 * tau(sigma_next) ** 2 * step_in_t(sigma, sigma_next)))
        fresh = noise(sigma, sigma_next) * (sigma_next * spread * s_noise)
        further, history = further + fresh, [fresh, *history]
    return replace(state, x=further, history=(x, *history), sigmas=tuple(sigmas), denoised=denoised)


def _adams(
    x: Latents,
    known: Sequence[Latents],
    levels: Sequence[float],
    sigma_next: float,
    order: int,
    tau: float,
    simple_order_2: bool,
) -> Latents:
    """x at the next level, with the prediction a polynomial in t = -log sigma through the newest that are known.

    Xue et al. (2023), equations 14 (predictor) and 17 (corrector, which knows the prediction at the next level).
    """
    start, end = -math.log(levels[-2] if levels[-1] == sigma_next else levels[-1]), -math.log(sigma_next)
    rate, h = 1 + tau**2, end - start
    times = [-math.log(level) for level in levels[-order:]]
    if simple_order_2 and order == 2:
        weights = [0.0 if time == start else rate * h**2 / 2 / (time - start) for time in times]
        weights[times.index(start)] = -math.expm1(-rate * h) - sum(weights)
    else:
        weights = lagrange_integrals(times, start, end, lambda t: rate * math.exp(rate * (t - end)))
    return combined([math.exp(-rate * h), *weights], [x, *known[-order:]])
