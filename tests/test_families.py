"""Every family, scaled down: one file and a folder give the same picture, and diffusers' pipeline the same latents."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.folders import Folders
from nodes.checkpoints import load_checkpoint
from nodes.engine import Engine, built_in
from nodes.latents import decode, empty_latent
from nodes.sampling import ksampler
from nodes.text import encode_text
from nodes.values import Image, Latent
from tests import small_models, tiny_models
from tests.small_models import SMALL

SIDE, STEPS, CFG, SEED = 64, 4, 5.0, 3
TEXT, AWAY = "the blue cat", "dog"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny_models.write_tokenizer(folder / "models" / "tokenizers" / "clip")
    return folder


@pytest.fixture(scope="module")
def engine(data: Path) -> Engine:
    return Engine(Folders.below(data), catalogue=built_in(), precision="fp32")


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
