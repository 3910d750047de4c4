"""DPM-Solver with levels of its own, Lu et al. (2022): `fast` counts evaluations, `adaptive` watches its error.

Both go from the first level of a schedule to the last above 0 and take no notice of those between. Here a step of the
schedule makes all of the solver's own steps that begin within it; the last of them may end beyond, where the next step
of the schedule then finds x. So a schedule can be cut anywhere.
"""

import math
from dataclasses import dataclass, replace

from nodes.maths.model_sampling import Latents
from nodes.maths.samplers.contract import Denoiser, NoiseSampler, State
from nodes.maths.samplers.exponential import step_down

CLOSE = 1e-5
"""Levels no further apart in t = -log sigma are the same."""

SHORTEST = 1e-6
"""A step in t that an error estimate is not allowed to shrink below."""


def dpm_fast(
    state: State,
    denoise: Denoiser,
    sigma: float,
    sigma_next: float,
    noise: NoiseSampler,
    *,
    first: float,
    last: float,
    evaluations: float,
) -> State:
    """DPM-Solver-fast, Lu et al. (2022), section 3.4: equal steps in t of third order, and lower ones at the end.

    Args:
        first: the level where the whole schedule begins, and `last` the one above 0 where it ends.
        evaluations: of the network in all.
    """
    orders = fast_orders(int(evaluations))
    start, end = to_t(first), to_t(last)
    h = (end - start) / len(orders)
    x, denoised, t = state.x, state.denoised, to_t(state.sigmas[-1] if state.sigmas else sigma)
    while _is_before(t, end, h) and _is_before(t, to_t(sigma_next), h):
        index = round((t - start) / h)
        flow = _Flow.at(denoise, x, t)
        denoised, t = flow.denoised, start + (index + 1) * h
        x = flow.solve(orders[index], t)[-1]
    return replace(state, x=x, sigmas=(to_sigma(t),), denoised=denoised)


def fast_orders(evaluations: int) -> list[int]:
    """As many steps of third order as fit, and the rest in one; when nothing is left, the last of them at 2 and 1."""
    thirds, rest = divmod(evaluations, 3)
    return [3] * thirds + [rest] if rest else [3] * (thirds - 1) + [2, 1]


def dpm_adaptive(
    state: State,
    denoise: Denoiser,
    sigma: float,
    sigma_next: float,
    noise: NoiseSampler,
    *,
    last: float,
    order: float = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    pcoeff: float = 0.0,
    icoeff: float = 1.0,
    dcoeff: float = 0.0,
    accept_safety: float = 0.81,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> State:
    """DPM-Solver-12 or -23, Lu et al. (2022), appendix C: two orders a step, whose difference steers its length.

    By a PID controller, Söderlind (2003): a step is repeated until its error is within `rtol` of x plus `atol`.

    Raises ValueError where no step is short enough.
    """
    x, denoised, end = state.x, state.denoised, to_t(last)
    lower = state.history[-1] if state.history else x
    t, h, *errors = state.sigmas or (to_t(sigma), math.copysign(h_init, end - to_t(sigma)))
    controller = _Controller(pcoeff, icoeff, dcoeff, 1.5 if eta else order)
    while _is_before(t, end, h) and _is_before(t, to_t(sigma_next), h):
        flow = _Flow.at(denoise, x, t)
        while True:
            t_next = min(t + h, end) if h > 0 else max(t + h, end)
            t_down, up = _below(t, t_next, end, eta)
            low, high = flow.solve(int(order), t_down)[-2:]
            tolerance = (rtol * low.abs().maximum(lower.abs())).clamp_min(atol)
            error = ((low - high) / tolerance).square().mean().sqrt().item()
            inverse = 1 / (error + 1e-8)
            errors = errors or [inverse, inverse]
            factor = controller.factor(inverse, *errors)
            h *= factor
            if not abs(h) > SHORTEST:
                raise ValueError(f"no step from sigma {to_sigma(t):.4g} is short enough; raise rtol or atol")
            if factor >= accept_safety:
                break
        errors = [inverse, errors[0]]
        x, lower, denoised = high, low, flow.denoised
        if up > 0:
            x = x + noise(to_sigma(t), to_sigma(t_next)) * (up * s_noise)
        t = t_next
    return replace(state, x=x, history=(lower,), sigmas=(t, h, *errors), denoised=denoised)


def to_t(sigma: float) -> float:
    return -math.log(sigma) if sigma > 0 else math.inf


def to_sigma(t: float) -> float:
    return math.exp(-t)


def _is_before(t: float, end: float, h: float) -> bool:
    """Whether a step in the direction of h still leads from t towards the end."""
    return (end - t) * math.copysign(1.0, h) > CLOSE


def _below(t: float, t_next: float, end: float, eta: float) -> tuple[float, float]:
    """How far to step for fresh noise to lead back up to t_next, not beyond the end; and how much noise."""
    if eta == 0:
        return t_next, 0.0
    down, _ = step_down(to_sigma(t), to_sigma(t_next), eta)
    t_down = min(to_t(down), end)
    return t_down, math.sqrt(to_sigma(t_next) ** 2 - to_sigma(t_down) ** 2)


@dataclass(frozen=True, slots=True)
class _Controller:
    """How much longer the next step may be, from the last three errors, Söderlind (2003)."""

    pcoeff: float
    icoeff: float
    dcoeff: float
    order: float

    def factor(self, inverse: float, before: float, before_that: float) -> float:
        """Between 0.2 and 2.6, whatever the errors (given as their inverses, newest first)."""
        exponents = (self.pcoeff + self.icoeff + self.dcoeff, -(self.pcoeff + 2 * self.dcoeff), self.dcoeff)
        wanted = math.prod(
            error ** (exponent / self.order)
            for error, exponent in zip((inverse, before, before_that), exponents, strict=True)
        )
        return 1 + math.atan(wanted - 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Flow:
    """The probability flow as seen from one point."""

    denoise: Denoiser
    x: Latents
    t: float
    denoised: Latents

    @staticmethod
    def at(denoise: Denoiser, x: Latents, t: float) -> "_Flow":
        return _Flow(denoise, x, t, denoise(x, to_sigma(t)))

    def solve(self, order: int, t_next: float) -> tuple[Latents, ...]:
        """x at t_next by this order, preceded by what the order below makes of the same evaluations.

        Lu et al. (2022), algorithms 1 and 2 and, for the third order, appendix; inner points in equal parts.
        """
        h, sigma = t_next - self.t, to_sigma(t_next)
        epsilon = self._epsilon(self.x, self.denoised, self.t)
        first = self.x - sigma * math.expm1(h) * epsilon
        if order == 1:
            return (first,)
        r = 1 / order
        t_1 = self.t + r * h
        x_1 = self.x - to_sigma(t_1) * math.expm1(r * h) * epsilon
        bend = self._epsilon(x_1, self.denoise(x_1, to_sigma(t_1)), t_1) - epsilon
        second = first - sigma / (2 * r) * math.expm1(h) * bend
        if order == 2:
            return first, second
        t_2 = self.t + 2 * r * h
        x_2 = (
            self.x
            - to_sigma(t_2) * math.expm1(2 * r * h) * epsilon
            - to_sigma(t_2) * 2 * (math.expm1(2 * r * h) / (2 * r * h) - 1) * bend
        )
        bend = self._epsilon(x_2, self.denoise(x_2, to_sigma(t_2)), t_2) - epsilon
        return first, second, first - sigma / (2 * r) * (math.expm1(h) / h - 1) * bend

    @staticmethod
    def _epsilon(x: Latents, denoised: Latents, t: float) -> Latents:
        return (x - denoised) / to_sigma(t)
