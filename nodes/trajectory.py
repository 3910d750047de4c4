"""What the sampling nodes do with tensors: into a sampler's state, one step onward, and out of it again."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nodes.denoiser import guided_denoiser, sampling_of
from nodes.latent_scale import for_network, for_vae
from nodes.maths import guidance
from nodes.maths.noise import BrownianNoise, SequentialNoise, initial_noise
from nodes.maths.samplers import SAMPLERS, NoiseSource, State, advance
from nodes.maths.samplers.growing import Growth
from nodes.models import ModelPool
from nodes.values import Conditioning, Latent, Model, Noise, Origin, SamplerState, Shown, ThirdPrompt

Settings = Sequence[tuple[str, float]]


class WrongLatent(ValueError):
    """A latent does not fit the model that is to sample it."""

    def __init__(self, expected: int, found: int) -> None:
        super().__init__(f"the model works on latents of {expected} channels, but this latent has {found}")


def drawn(noise: Noise, latent: Latent) -> Tensor:
    """The noise for a latent: drawn on the CPU, whole batch at once, or by index for samples of a larger batch."""
    if noise.seed is None:
        return torch.zeros_like(latent.samples)
    return initial_noise(latent.samples.shape, noise.seed, latent.batch_index)


def diffuse(model: Model, noise: Noise, sigma: float, latent: Latent, preserve_variance: bool) -> Latent:
    """The latent as forward diffusion has it at a noise level."""
    latent = _fitting(model, latent)
    scaled = _scaled(model, latent)
    sampling = sampling_of(model)
    x = sampling.noise_scaling(sigma, drawn(noise, latent), scaled)
    if preserve_variance:
        x = sampling.scale_input(x, sigma)
    return replace(latent, samples=for_vae(model, x), unfinished=None)


def start(
    model: Model,
    noise: Noise,
    latent: Latent,
    sampler_name: str,
    sigma: float,
    seed: int | None,
    max_denoise: bool,
    lowest_sigma: float,
    settings: Settings = (),
    told: Settings = (),
    ends: tuple[float, float] | None = None,
) -> SamplerState:
    """The state at the first noise level; an unfinished latent of the same sampler goes on exactly where it was.

    Without a seed it does so whatever the seed it began with.

    Args:
        settings: what differs from the sampler's usual settings, by name.
        told: what it has to know of the model and the whole schedule.
        ends: the first and the last level of the whole schedule, where a noise mask goes by them.
    """
    latent = _fitting(model, latent)
    unfinished = latent.unfinished
    if (
        noise.seed is None
        and unfinished is not None
        and _continues(unfinished, model, sampler_name, sigma, seed, latent, settings)
    ):
        return unfinished
    x = sampling_of(model).noise_scaling(sigma, drawn(noise, latent), _scaled(model, latent), max_denoise)
    interval = (lowest_sigma, sigma) if lowest_sigma else None
    origin = None if latent.noise_mask is None else Origin(latent.samples, noise)
    if "scale_ratio" in dict(settings):
        if origin is not None:
            raise ValueError("a noise mask cannot follow a latent that grows; take the mask out, or scale_ratio 1")
        told = (*told, ("height", x.shape[-2]), ("width", x.shape[-1]))
    return SamplerState(
        x,
        sigma,
        sampler_name,
        seed or 0,
        model.weights.identity,
        interval=interval,
        origin=origin,
        settings=tuple(settings),
        told=tuple(told),
        ends=ends,
    )


def step(
    models: ModelPool,
    model: Model,
    positive: Conditioning,
    negative: Conditioning | None,
    cfg: float,
    state: SamplerState,
    sigma: float,
    sigma_next: float,
    noise: Noise | None,
    latent: Latent | None,
    ahead: Sequence[float] | None = None,
    third: ThirdPrompt | None = None,
) -> SamplerState:
    """One step of the state's own sampler.

    Raises ValueError when the state stands at another noise level, and when a sampler that looks ahead is told nothing.

    Args:
        ahead: the levels after `sigma_next`, as far as the sampler looks ahead; None for those that do not.
    """
    if state.sigma != sigma:
        raise ValueError(
            f"this step starts at noise level {sigma:.6g}, but the state it is given stands at {state.sigma:.6g}; "
            "steps must follow one another along one schedule"
        )
    # From here to SamplerEnd everything stays on the network's device, so that no step waits for a copy.
    device = models.device
    spec = SAMPLERS[state.sampler]
    if spec.lookahead and ahead is None:
        raise ValueError(
            f"the sampler {state.sampler!r} looks at the noise levels after this step, but the step was not told of "
            "them; connect the sampler to the step too"
        )
    memory = {earlier.rule: earlier for earlier in state.memory}
    latent = latent and _fitting(model, latent)
    shown = None
    if latent is not None and latent.noise_mask is not None:
        shown = Shown(_origin(state, noise, latent).samples, latent.noise_mask[:, 0])
    batch, seed = len(state.x), state.seed
    denoise = guided_denoiser(models, model, positive, negative, cfg, batch, spec.uncond, memory, third, shown, seed)
    if latent is not None and latent.noise_mask is not None:
        mask = guidance.prepare_mask(latent.noise_mask, state.x.shape).to(device)
        origin = _origin(state, noise, latent)
        kept = replace(latent, samples=origin.samples)
        kept_noise = _mask_noise(state, origin.noise, kept).to(device)
        mask_at = _mask_by_time(model, state, mask)
        denoise = guidance.keep_area(denoise, mask_at, kept_noise, _scaled(model, kept).to(device), sampling_of(model))
    history = tuple(earlier.to(device) for earlier in state.history)
    settings = (*state.told, *state.settings)
    before = State(state.x.to(device), history, state.sigmas, state.draws, ahead=tuple(ahead or ()), settings=settings)
    after = advance(state.sampler, before, denoise, sigma, sigma_next, _noise_source(state))
    return replace(
        state,
        x=after.x,
        sigma=sigma_next,
        history=after.history,
        sigmas=after.sigmas,
        draws=after.draws,
        denoised=after.denoised,
        memory=tuple(memory.values()),
    )


def end(model: Model, state: SamplerState, latent: Latent | None) -> Latent:
    """Back to a latent: clean when the last noise level was 0, otherwise with the state to go on from."""
    samples = _unscaled(model, state)
    latent = latent and _fitting(model, latent)
    finished = state.sigma == 0
    mask = latent.noise_mask if latent else None
    if latent is not None and mask is not None and finished:
        kept = guidance.prepare_mask(mask, samples.shape) == 0
        samples = torch.where(kept, _origin(state, None, latent).samples, samples)
    return Latent(samples, mask, latent.batch_index if latent else None, unfinished=None if finished else state)


def denoised(model: Model, state: SamplerState, latent: Latent | None) -> Latent:
    """What the last step took the finished latent for; before any step, the noisy latent itself."""
    mask, index = (latent.noise_mask, latent.batch_index) if latent else (None, None)
    if state.denoised is None:
        return Latent(_unscaled(model, state), mask, index)
    return Latent(for_vae(model, state.denoised.cpu()), mask, index)


def _fitting(model: Model, latent: Latent) -> Latent:
    """The latent itself; an empty one of another number of channels becomes an empty one of the model's."""
    channels = latent.samples.shape[1]
    if channels == model.latent_channels or latent.samples.any():
        return latent
    batch, _, *size = latent.samples.shape
    return replace(latent, samples=latent.samples.new_zeros(batch, model.latent_channels, *size))


def _scaled(model: Model, latent: Latent) -> Tensor:
    channels = latent.samples.shape[1]
    if channels != model.latent_channels:
        raise WrongLatent(model.latent_channels, channels)
    if model.latent_shift and not latent.samples.any():  # an empty latent stays one
        return latent.samples
    return for_network(model, latent.samples)


def _unscaled(model: Model, state: SamplerState) -> Tensor:
    """Where a state stands, in the scale of latents."""
    level = state.sigma or SAMPLERS[state.sampler].stops_at
    x = sampling_of(model).noise_unscaling(level, state.x.cpu())
    return for_vae(model, x)


def _continues(
    state: SamplerState,
    model: Model,
    sampler_name: str,
    sigma: float,
    seed: int | None,
    latent: Latent,
    settings: Settings,
) -> bool:
    """Whether sampling can go on from a state as if it had never stopped. The latent must be untouched since."""
    stated = state.seed if seed is None else seed
    wanted = (sampler_name, tuple(settings), sigma, stated, model.weights.identity)
    same = (state.sampler, state.settings, state.sigma, state.seed, state.network) == wanted
    return same and torch.equal(latent.samples, _unscaled(model, state))


def _origin(state: SamplerState, noise: Noise | None, latent: Latent) -> Origin:
    """What a noise mask keeps: the given latent, or, when that is half-way noise already, what that was made from."""
    if latent.unfinished is not None and state.origin is not None:
        return state.origin
    return Origin(latent.samples, noise or Noise(state.seed))


def _mask_by_time(model: Model, state: SamplerState, mask: Tensor) -> Tensor | guidance.MaskAt:
    """The mask itself, or what of it is open at a noise level, by the timesteps between the ends of the schedule."""
    if model.differential is None or state.ends is None:
        return mask
    strength, sampling = model.differential, sampling_of(model)
    first, last = (sampling.timestep(level) for level in (state.ends[0], max(state.ends[1], sampling.sigma_min)))

    def mask_at(sigma: float) -> Tensor:
        left = (sampling.timestep(sigma) - last) / (first - last) if first != last else 0.0
        return guidance.open_so_far(mask, left, strength)

    return mask_at


def _mask_noise(state: SamplerState, noise: Noise, kept: Latent) -> Tensor:
    """The noise under which the kept area is shown to the network at every step."""
    offset = SAMPLERS[state.sampler].mask_seed_offset
    if offset:
        return initial_noise(kept.samples.shape, (state.seed + offset) % 2**64)
    return drawn(noise, kept)


def _noise_source(state: SamplerState) -> NoiseSource:
    shape = tuple(state.x.shape)
    if "scale_ratio" in dict(state.settings):
        size = Growth(**dict((*state.told, *state.settings))).size(state.draws + 1)
        return SequentialNoise(state.seed, (*shape[:-2], *size))
    if state.interval is None:
        return SequentialNoise(state.seed, shape)
    return BrownianNoise(state.seed, *state.interval, shape)
