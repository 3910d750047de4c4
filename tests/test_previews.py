"""Pictures of latents: the fit against exact solutions, what is drawn for whom, and how near it comes."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from graph.active_run import RunOptions
from graph.builder import WorkflowBuilder
from graph.events import Event, NodeProgressed
from graph.folders import Folders
from graph.previews import Preview
from nodes.checkpoints import load_checkpoint
from nodes.embedded import LOOMLET
from nodes.embedded.training import autoencoder
from nodes.embedded.training.album import Album
from nodes.engine import Engine
from nodes.latent_scale import for_network
from nodes.latents import empty_latent
from nodes.maths.previews import STABLE_DIFFUSION_1, STABLE_DIFFUSION_XL, fit_linear_map, to_rgb
from nodes.model_folders import read_checkpoint
from nodes.models import ModelPool
from nodes.previews import LatentPreview, preview_latent
from nodes.sampling import ksampler
from nodes.text import encode_text
from nodes.values import Model, Weights

MODEL = Model(Weights(Path("none"), "toy", "toy"))


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- who watches ---


def test_nothing_is_drawn_when_nobody_watches() -> None:
    drawn: list[str] = []
    Preview().preview(lambda: drawn.append("picture"))
    assert not drawn


def test_who_watches_gets_every_picture() -> None:
    taken: list[object] = []
    preview = Preview(taken.append)
    for name in ("first", "second"):
        preview.preview(lambda name=name: name)
    assert taken == ["first", "second"]


# --- the fit ---


@pytest.mark.parametrize("channels", [1, 4, 16])
def test_a_map_that_pictures_follow_exactly_is_found(channels: int) -> None:
    weight, bias = random(channels, 3).double(), random(3, seed=2).double()
    latents = random(3, channels, 6, 9, seed=3).double()
    small = torch.einsum("bchw,cr->brhw", latents, weight) + bias[:, None, None]
    fitted = fit_linear_map(latents, interpolate(small, scale_factor=8, mode="nearest"))
    torch.testing.assert_close(fitted.weight, weight.float())
    torch.testing.assert_close(fitted.bias, bias.float())


def test_what_the_fit_leaves_over_is_orthogonal_to_the_latent() -> None:
    """The normal equations, which only the least squares solution fulfils."""
    latents, pictures = random(2, 4, 8, 8), random(2, 3, 8, 8, seed=2)
    weight, bias = fit_linear_map(latents, pictures)
    left = pictures - torch.einsum("bchw,cr->brhw", latents, weight) - bias[:, None, None]
    assert left.abs().mean() > 0.5
    torch.testing.assert_close(left.sum((0, 2, 3)), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.einsum("bchw,brhw->cr", latents, left), torch.zeros(4, 3), atol=1e-3, rtol=0)


def test_each_latent_pixel_stands_for_the_mean_of_its_area() -> None:
    latents = torch.tensor([[[[0.0, 1.0]]]])
    pictures = torch.zeros(1, 3, 2, 4)
    pictures[..., 2:] = torch.tensor([[0.2, 0.4], [0.6, 0.8]])
    weight, bias = fit_linear_map(latents, pictures)
    torch.testing.assert_close(weight, torch.full((1, 3), 0.5))
    torch.testing.assert_close(bias, torch.zeros(3))


# --- colours ---


def pixel(model: Model, *channels: float) -> list[int]:
    """The colour of a latent of one pixel."""
    picture = preview_latent(model, torch.tensor(channels).reshape(1, -1, 1, 1))
    return cast("list[int]", picture.pixels[0, 0].tolist())


def test_the_published_colours_of_stable_diffusion_1() -> None:
    assert pixel(MODEL, 0, 0, 0, 0) == [128, 128, 128]
    red, green, blue = (round(255 * (1 + part) / 2) for part in (0.298 - 0.158, 0.207 + 0.189, 0.208 + 0.264))
    assert pixel(MODEL, 1, 0, 1, 0) == [red, green, blue]


def test_the_published_colours_of_stable_diffusion_xl() -> None:
    model = replace(MODEL, latent_scale=0.13025)
    assert pixel(model, 0, 0, 0, 0) == [150, 140, 130]
    assert pixel(model, 1, 0, 0, 1) == [150 + 60 - 70, 140 + 60 - 50, 130 + 60 - 35]


@pytest.mark.parametrize("linear", [STABLE_DIFFUSION_1, STABLE_DIFFUSION_XL])
def test_published_maps_stay_within_a_picture(linear: Any) -> None:
    pictures = to_rgb(20 * random(1, 4, 8, 8), linear)
    assert (pictures.min().item(), pictures.max().item()) == (0.0, 1.0)


@pytest.mark.parametrize("channels", [4, 16, 128])
def test_any_other_latent_is_shown_in_grey(channels: int) -> None:
    model = replace(MODEL, latent_scale=0.5, latent_channels=channels)
    samples = random(2, channels, 5, 7)
    pixels = preview_latent(model, samples).pixels
    assert pixels.shape == (5, 7, 3)
    assert (pixels == pixels[..., :1]).all()
    mean = samples[0].mean(0)
    order = mean.flatten().argsort()
    assert (np.diff(pixels[..., 0].flatten()[order.numpy()].astype(int)) >= 0).all()
    assert np.array_equal(preview_latent(model, 3 * samples + 5).pixels, pixels)


def test_an_even_latent_without_known_colours_is_mid_grey() -> None:
    assert pixel(replace(MODEL, latent_scale=0.5), 7, 7, 7, 7) == [128, 128, 128]


def test_what_is_not_a_number_is_black() -> None:
    assert pixel(MODEL, float("nan"), 0, 0, 0) == [0, 0, 0]


# --- the picture as bytes ---


def opened(encoded: bytes) -> Image.Image:
    return Image.open(BytesIO(encoded))


def test_png_keeps_every_pixel() -> None:
    picture = preview_latent(MODEL, random(1, 4, 6, 9))
    assert picture.size == (9, 6)
    assert np.array_equal(np.asarray(opened(picture.png())), picture.pixels)


@pytest.mark.parametrize(("latent", "expected"), [((64, 64), (512, 512)), ((4, 6), (512, 341)), ((2000, 1), (1, 512))])
def test_what_goes_to_a_client_fits_into_512_pixels(latent: tuple[int, int], expected: tuple[int, int]) -> None:
    picture = preview_latent(MODEL, torch.zeros(1, 4, *latent))
    small = opened(picture.jpeg())
    assert (small.format, small.size) == ("JPEG", expected)


def test_pictures_cannot_be_changed() -> None:
    picture = LatentPreview(np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        picture.pixels[0] = 1


# --- the embedded model ---


def test_previews_of_the_embedded_model_are_near_its_pictures() -> None:
    """On pictures it was not fitted on: nearer than each one's mean colour, and than shades of grey."""
    model, _, vae = read_checkpoint(LOOMLET, "loomlet")
    pictures = autoencoder.to_tensor(Album("others", 12, 128, seed=5).page(0))
    latents = ModelPool(precision="fp32", device="cpu").encode_pixels(vae, pictures)
    small = interpolate((pictures + 1) * 127.5, scale_factor=1 / 8, mode="area").movedim(1, -1).numpy()

    def fidelity(model: Model) -> float:
        made = [preview_latent(model, for_network(model, latent[None])).pixels for latent in latents]
        return autoencoder.fidelity(np.stack(made), small)

    even = autoencoder.fidelity(np.broadcast_to(small.mean((1, 2), keepdims=True), small.shape), small)
    assert fidelity(model) > max(18.5, even + 1.5, fidelity(replace(model, preview=None)) + 5.0)


def previews_of_a_run(folder: Path, wanted: bool) -> list[LatentPreview]:
    """What three steps of the embedded model show of themselves."""
    with WorkflowBuilder() as workflow:
        model, clip, _ = load_checkpoint(ckpt_name="loomlet")
        positive, negative = (encode_text(text=text, clip=clip) for text in ("a red house", ""))
        latent: Any = ksampler(
            model=model, steps=3, positive=positive, negative=negative, latent_image=empty_latent(width=64, height=96)
        )
    shown: list[Any] = []

    def emit(event: Event) -> None:
        if isinstance(event, NodeProgressed) and event.class_name == "KSampler" and event.preview is not None:
            shown.append(event.preview)

    engine = Engine(Folders.below(folder), precision="fp32")
    engine.run(workflow, targets=[latent.step], emit=emit, options=RunOptions(previews=wanted)).checked()
    return shown


def test_every_step_of_a_run_that_is_watched_shows_a_picture(tmp_path: Path) -> None:
    shown = previews_of_a_run(tmp_path, wanted=True)
    assert [picture.size for picture in shown] == [(8, 12)] * 3
    assert not np.array_equal(shown[0].pixels, shown[-1].pixels)


def test_a_run_that_nobody_watches_shows_none(tmp_path: Path) -> None:
    assert previews_of_a_run(tmp_path, wanted=False) == []
