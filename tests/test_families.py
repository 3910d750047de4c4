"""Every family, scaled down: one file and a folder give the same picture, and diffusers' pipeline the same latents."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.catalogue import Catalogue
from graph.folders import Folders
from graph.node import node
from nodes.checkpoints import load_checkpoint
from nodes.engine import Engine, built_in
from nodes.latents import decode, empty_latent
from nodes.model_inputs import encode_text_refiner, encode_text_sdxl, inpaint_conditioning, pix2pix_conditioning
from nodes.sampling import ksampler
from nodes.text import encode_text
from nodes.values import Image, Latent, Mask
from tests import small_models, tiny_models
from tests.small_models import SMALL

pytestmark = pytest.mark.usefixtures("packed_as_large_ones")

SIDE, STEPS, CFG, SEED = 64, 4, 5.0, 3
TEXT, AWAY = "the blue cat", "dog"


def scene_pixels() -> Tensor:
    return torch.rand(1, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(1))


@node("Scene")
def scene() -> Image:
    """A picture of noise."""
    return Image(scene_pixels())


@node("Hole")
def hole() -> Mask:
    """The left upper quarter is to be painted."""
    values = torch.zeros(1, SIDE, SIDE)
    values[:, : SIDE // 2, : SIDE // 2] = 1
    return Mask(values)


def begun_latents() -> Tensor:
    return torch.randn(1, 4, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(2))


@node("Begun")
def begun() -> Latent:
    """What another network has made, to be refined."""
    return Latent(begun_latents())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny_models.write_tokenizer(folder / "models" / "tokenizers" / "clip")
    return folder


@pytest.fixture(scope="module")
def engine(data: Path) -> Engine:
    return Engine(Folders.below(data), catalogue=built_in() | Catalogue([scene, hole, begun]), precision="fp32")


def both(data: Path, family: str) -> Path:
    """The family's file and folder, of the same weights; the folder's path."""
    checkpoints, small = data / "models" / "checkpoints", SMALL[family]
    if not (checkpoints / family).is_dir():
        tokenizer = data / "models" / "tokenizers" / "clip"
        weights = small_models.write_file(checkpoints / f"{family}.safetensors", small, tokenizer)
        small_models.write_folder(checkpoints / family, small, weights)
    return checkpoints / family


def picture(engine: Engine, name: str) -> tuple[Tensor, Tensor]:
    """The latents and pictures that a checkpoint gives."""
    with WorkflowBuilder() as workflow:
        model, clip, vae = load_checkpoint(ckpt_name=name)
        latent = ksampler(
            model=model, seed=SEED, steps=STEPS, cfg=CFG, sampler_name="euler", scheduler="normal",
            positive=encode_text(text=TEXT, clip=clip), negative=encode_text(text=AWAY, clip=clip),
            latent_image=empty_latent(width=SIDE, height=SIDE, batch_size=2),
        )  # fmt: skip
        decoded: Any = decode(latent, vae)
        wanted: Any = latent
    outputs = engine.run(workflow, targets=[wanted.step, decoded.step]).checked().outputs
    return cast(Latent, outputs[wanted.step][0]).samples, cast(Image, outputs[decoded.step][0]).pixels


@pytest.mark.parametrize("family", ["SD 1", "SD 2", "SD 2 512", "SDXL", "SDXL refiner", "inpainting", "pix2pix"])
def test_a_file_and_a_folder_give_the_same_picture(family: str, data: Path, engine: Engine):
    both(data, family)
    (latent, pixels), (other_latent, other_pixels) = (picture(engine, f"{family}{end}") for end in (".safetensors", ""))
    assert torch.equal(latent, other_latent) and torch.equal(pixels, other_pixels)
    assert latent.isfinite().all() and latent.std() > 0.1 and pixels.std() > 0.01


def start() -> Tensor:
    """Noise as the reference starts from it, as a share of what diffusers multiplies it with."""
    sigma = 14.6146
    noise = torch.randn(2, 4, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(SEED))
    return noise * (1 + sigma**2) ** 0.5 / sigma


def pipeline(folder: Path) -> Any:
    import diffusers

    made = cast(Any, diffusers).DiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
    made.set_progress_bar_config(disable=True)
    return made


# diffusers hands torch's tensors to numpy in a way that numpy 2 warns of.
quiet = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def near(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


ASKED: dict[str, Any] = {
    "prompt": [TEXT] * 2, "negative_prompt": [AWAY] * 2, "num_inference_steps": STEPS, "guidance_scale": CFG,
    "output_type": "latent",
}  # fmt: skip


@quiet
@pytest.mark.parametrize("family", ["SD 1", "SD 2", "SD 2 512", "SDXL"])
def test_the_latents_are_those_of_diffusers_pipeline(family: str, data: Path, engine: Engine):
    theirs = pipeline(both(data, family))(**ASKED, height=SIDE, width=SIDE, latents=start()).images
    near(picture(engine, f"{family}.safetensors")[0] * SMALL[family].scale, theirs)


def sampled(engine: Engine, family: str, prepare: Any, steps: int = STEPS, denoise: float = 1.0) -> Tensor:
    """The latents of a workflow that prepares prompts and a latent for sampling."""
    with WorkflowBuilder() as workflow:
        model, clip, vae = load_checkpoint(ckpt_name=f"{family}.safetensors")
        positive, negative, latent_image = prepare(clip, vae)
        latent: Any = ksampler(
            model=model, seed=SEED, steps=steps, cfg=CFG, sampler_name="euler", scheduler="normal", positive=positive,
            negative=negative, latent_image=latent_image, denoise=denoise,
        )  # fmt: skip
    return cast(Latent, engine.run(workflow, targets=[latent.step]).checked().outputs[latent.step][0]).samples


@quiet
def test_inpainting_latents_are_those_of_diffusers_pipeline(data: Path, engine: Engine):
    both(data, "inpainting")
    image, mask = scene_pixels().movedim(-1, 1), hole().values[:, None]
    asked = {**ASKED, "prompt": TEXT, "negative_prompt": AWAY, "latents": start()[:1]}
    # diffusers blanks with 0 in -1…1 what is 0.5 in 0…1, and encodes by drawing from the posterior: its mode here.
    made = pipeline(data / "models" / "checkpoints" / "inpainting")
    draw = made.vae.encode

    def encode(pixels: Tensor) -> Mode:
        return Mode(draw(pixels).latent_dist.mode())

    made.vae.encode = encode
    theirs = made(**asked, image=image, mask_image=mask, height=SIDE, width=SIDE, strength=1.0).images

    def prepare(clip: Any, vae: Any) -> Any:
        texts = (encode_text(text=text, clip=clip) for text in (TEXT, AWAY))
        shown: Any = inpaint_conditioning(*texts, vae=vae, pixels=scene(), mask=hole(), noise_mask=False)
        return shown[0], shown[1], empty_latent(SIDE, SIDE)

    near(sampled(engine, "inpainting", prepare) * 0.18215, theirs)


class Mode:
    """An encoding whose posterior is a point."""

    def __init__(self, latents: Tensor) -> None:
        self.latents = latents


@quiet
def test_pix2pix_latents_are_those_of_diffusers_pipeline(data: Path, engine: Engine):
    asked = {**ASKED, "prompt": TEXT, "negative_prompt": AWAY, "latents": start()[:1], "image_guidance_scale": 1.0}
    # At a scale of 1 diffusers asks for no guidance by the picture: a hair more is the plain formula within tolerance.
    asked["image_guidance_scale"] = 1.0 + 1e-9
    theirs = pipeline(both(data, "pix2pix"))(**asked, image=scene_pixels().movedim(-1, 1)).images

    def prepare(clip: Any, vae: Any) -> Any:
        texts = (encode_text(text=text, clip=clip) for text in (TEXT, AWAY))
        return pix2pix_conditioning(*texts, vae=vae, pixels=scene())

    near(sampled(engine, "pix2pix", prepare) * 0.18215, theirs)


@quiet
def test_stated_sizes_are_told_as_diffusers_tells_them(data: Path, engine: Engine):
    told = {"original_size": (512, 768), "crops_coords_top_left": (16, 32), "target_size": (256, 384)}
    told |= {f"negative_{name}": value for name, value in told.items()}
    asked = {**ASKED, "prompt": TEXT, "negative_prompt": AWAY, "latents": start()[:1]}
    made = pipeline(both(data, "SDXL"))
    theirs = made(**asked, **told, prompt_2="cat", height=SIDE, width=SIDE, negative_prompt_2=AWAY).images

    def prepare(clip: Any, vae: Any) -> Any:
        sizes: Any = {
            "width": 768,
            "height": 512,
            "crop_w": 32,
            "crop_h": 16,
            "target_width": 384,
            "target_height": 256,
        }
        positive = encode_text_sdxl(clip=clip, text_l=TEXT, text_g="cat", **sizes)
        return positive, encode_text_sdxl(clip=clip, text_l=AWAY, text_g=AWAY, **sizes), empty_latent(SIDE, SIDE)

    near(sampled(engine, "SDXL", prepare) * 0.13025, theirs)


@quiet
@pytest.mark.parametrize(("ascore", "other"), [(6.0, 2.5), (9.0, 1.0)])
def test_refined_latents_are_those_of_diffusers_pipeline(ascore: float, other: float, data: Path, engine: Engine):
    made = pipeline(both(data, "SDXL refiner"))
    # It counts the steps that are left out. With ten of them all are at whole timesteps, between which it interpolates
    # otherwise.
    asked = {**ASKED, "prompt": TEXT, "negative_prompt": AWAY, "num_inference_steps": 10, "strength": 0.5}
    asked |= {"aesthetic_score": ascore, "negative_aesthetic_score": other}
    noise = torch.Generator().manual_seed(SEED)
    theirs = made(**asked, image=begun_latents() * 0.13025, generator=noise).images

    def prepare(clip: Any, vae: Any) -> Any:
        sizes: Any = {"width": SIDE, "height": SIDE}
        positive = encode_text_refiner(text=TEXT, clip=clip, ascore=ascore, **sizes)
        return positive, encode_text_refiner(text=AWAY, clip=clip, ascore=other, **sizes), begun()

    near(sampled(engine, "SDXL refiner", prepare, steps=5, denoise=0.5) * 0.13025, theirs)


def test_the_refiner_is_told_a_score(data: Path, engine: Engine):
    both(data, "SDXL refiner")

    def by_score(ascore: float | None) -> Tensor:
        def prepare(clip: Any, vae: Any) -> Any:
            negative = encode_text_refiner(text=AWAY, clip=clip, ascore=2.5, width=SIDE, height=SIDE)
            if ascore is None:
                return encode_text(text=TEXT, clip=clip), encode_text(text=AWAY, clip=clip), empty_latent(SIDE, SIDE)
            positive = encode_text_refiner(text=TEXT, clip=clip, ascore=ascore, width=SIDE, height=SIDE)
            return positive, negative, empty_latent(SIDE, SIDE)

        return sampled(engine, "SDXL refiner", prepare)

    assert torch.equal(by_score(None), by_score(6.0)) and not torch.equal(by_score(6.0), by_score(600.0))
