"""Stable Diffusion 3 and Flux as whole checkpoints: from a prompt to diffusers' latents, from a file and a folder."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from nodes.checkpoints import load_checkpoint
from nodes.engine import Engine
from nodes.inspection import describe
from nodes.latents import decode, empty_sd3_latent
from nodes.model_errors import ModelError
from nodes.models import ModelPool
from nodes.sampling import ksampler
from nodes.schedules import basic_scheduler
from nodes.text import encode_text
from nodes.text_encoding import encode_prompt
from nodes.values import Image, Latent, Sigmas
from tests import t5_models, tiny_models, whole_transformers
from tests.whole_transformers import WHOLE

pytestmark = [
    pytest.mark.usefixtures("packed_as_large_ones"),
    # diffusers hands torch's tensors to numpy in a way that numpy 2 warns of.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SIDE, STEPS, CFG, SEED = 64, 3, 4.0, 3
TEXT, AWAY = "the blue cat and a dog", "dog"
CHANNELS = 16


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(whole_transformers.data_below(tmp_path_factory.mktemp("data")), precision="fp32")


def checkpoints(engine: Engine) -> Path:
    return engine.folders.models("checkpoints")


def sampled(engine: Engine, name: str) -> tuple[Tensor, Tensor, list[float]]:
    """The latents and the picture that a checkpoint makes of a prompt, and its noise levels."""
    with WorkflowBuilder() as workflow:
        model, clip, vae = load_checkpoint(ckpt_name=name)
        latent: Any = ksampler(
            model=model, seed=SEED, steps=STEPS, cfg=1.0 if "Flux" in name else CFG, sampler_name="euler",
            scheduler="simple", positive=encode_text(text=TEXT, clip=clip), negative=encode_text(text=AWAY, clip=clip),
            latent_image=empty_sd3_latent(SIDE, SIDE, 1),
        )  # fmt: skip
        picture: Any = decode(latent, vae)
        sigmas: Any = basic_scheduler(model=model, scheduler="simple", steps=STEPS)
    found = engine.run(workflow, targets=[latent.step, picture.step, sigmas.step]).checked().outputs
    levels = cast(Sigmas, found[sigmas.step][0]).values
    return cast(Latent, found[latent.step][0]).samples, cast(Image, found[picture.step][0]).pixels, list(levels)


def theirs(folder: Path, sigmas: list[float]) -> Tensor:
    """The latents of diffusers' pipeline, for the same prompt."""
    import diffusers

    library: Any = diffusers
    made = library.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    made.scheduler = library.FlowMatchEulerDiscreteScheduler(shift=1.0)  # its levels are given, already shifted
    made.set_progress_bar_config(disable=True)
    noise = torch.randn(1, CHANNELS, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(SEED))
    asked: dict[str, Any] = {"prompt": TEXT, "height": SIDE, "width": SIDE, "num_inference_steps": STEPS}
    asked |= {"sigmas": sigmas[:-1], "output_type": "latent"}
    if "Flux" not in folder.name:
        asked |= {"negative_prompt": AWAY, "guidance_scale": CFG, "max_sequence_length": 77}
        return made(**asked, latents=noise).images
    packed = made._pack_latents(noise, 1, CHANNELS, SIDE // 8, SIDE // 8)
    found = made(**asked, latents=packed, guidance_scale=3.5, max_sequence_length=256).images
    return made._unpack_latents(found, SIDE, SIDE, 8)


@pytest.mark.parametrize("name", WHOLE)
def test_a_prompt_becomes_the_latents_of_diffusers_pipeline(name: str, engine: Engine):
    latent, picture, sigmas = sampled(engine, f"{name}.safetensors")
    small, expected = WHOLE[name], theirs(checkpoints(engine) / name, sigmas)
    ours = (latent - small.shift) * small.scale
    assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max() and picture.std() > 0.01


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_and_a_folder_give_the_same_picture(name: str, engine: Engine):
    whole, parts = sampled(engine, f"{name}.safetensors"), sampled(engine, name)
    assert torch.equal(whole[0], parts[0]) and torch.equal(whole[1], parts[1]) and whole[2] == parts[2]


@pytest.mark.parametrize("name", WHOLE)
def test_checkpoints_and_their_text_encoders_are_described(name: str, engine: Engine):
    folder = checkpoints(engine) / name
    t5 = folder / ("text_encoder_2" if "Flux" in name else "text_encoder_3")
    assert describe(folder).title == "checkpoint (diffusers folder)"
    assert describe(t5).title == "text encoder (transformers folder)" and describe(t5).lines[0] == "T5, 1792 wide"
    told = describe(folder.with_name(f"{name}.safetensors"))
    assert any("below text_encoders.t5xxl.transformer." in line for line in told.lines)


def without(engine: Engine, name: str, start: str) -> Path:
    """A copy of a file without what its names start with."""
    weights = tiny_models.load_weights(checkpoints(engine) / f"{name}.safetensors")
    path = checkpoints(engine) / f"{name} without {start}safetensors"
    tiny_models.save_weights({key: tensor for key, tensor in weights.items() if not key.startswith(start)}, path)
    return path


@pytest.mark.parametrize(
    ("name", "loader"), [("SD 3", "TripleCLIPLoader"), ("Flux dev", "DualCLIPLoader of type flux")]
)
def test_a_file_without_text_encoders_has_a_model_and_a_vae(name: str, loader: str, engine: Engine):
    path = without(engine, name, "text_encoders.")
    found = load_checkpoint(path.name, folders=engine.folders)
    whole = load_checkpoint(f"{name}.safetensors", folders=engine.folders)
    assert found.MODEL.levels == whole.MODEL.levels and found.VAE.latent_channels == CHANNELS
    with pytest.raises(ModelError, match=f"holds no text encoder. Load them with {loader}"):
        encode_prompt(ModelPool(precision="fp32", device="cpu"), found.CLIP, TEXT)


def test_a_file_without_a_t5_has_the_other_two(engine: Engine):
    path = without(engine, "SD 3", "text_encoders.t5xxl.")
    clip = load_checkpoint(path.name, folders=engine.folders).CLIP
    assert [each.tower for each in clip.encoders] == ["CLIP-L", "CLIP-G"] and clip.joined == "SD 3"


def test_a_folder_may_lack_its_t5(engine: Engine, tmp_path: Path):
    folder = whole_transformers.write_whole(tmp_path / "SD 3", "SD 3")
    path = folder / "model_index.json"
    path.write_text(path.read_text().replace('["transformers", "T5EncoderModel"]', "[null, null]"))
    clip = _loaded(folder)
    assert [each.tower for each in clip.encoders] == ["CLIP-L", "CLIP-G"]
    path.write_text(path.read_text().replace('["transformers", "CLIPTextModelWithProjection"]', "[null, null]"))
    assert _loaded(folder).absent


def _loaded(folder: Path) -> Any:
    from nodes.pipelines import read_pipeline

    return read_pipeline(folder, folder.name)[1]


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path):
    folder = whole_transformers.write_whole(tmp_path / "Flux dev", "Flux dev")
    t5_models.write_encoder(folder / "text_encoder_2", 128)
    with pytest.raises(ModelError, match="expects text states of width 1792, text_encoder_2/ makes 128"):
        _loaded(folder)
