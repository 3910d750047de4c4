"""The usual workflows of Stable Diffusion 3 and Flux, as documents, through the command line, with tiny networks."""

from pathlib import Path
from typing import Any

import pytest

from tests import text_families, tiny_models, whole_transformers
from tests.commands import latentloom, opened, saved
from tests.original_layouts import write_weights
from tests.whole_transformers import WHOLE

TEXT = "the blue cat and a dog"
SIDE = 64


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole checkpoints, and their parts as they are handed on: networks, text encoders and autoencoders in files."""
    folders = whole_transformers.data_below(tmp_path_factory.mktemp("data"))
    for name in WHOLE:
        path = folders.models("checkpoints") / f"{name}.safetensors"
        weights = tiny_models.load_weights(path)
        for kind, start in (("diffusion_models", "model.diffusion_model."), ("vae", "first_stage_model.")):
            own = {key.removeprefix(start): tensor for key, tensor in weights.items() if key.startswith(start)}
            write_weights(folders.models(kind) / f"{name}.safetensors", own)
        rest = {key: tensor for key, tensor in weights.items() if not key.startswith("text_encoders.")}
        write_weights(path.with_name(f"{name} bare.safetensors"), rest)
    for name, part in text_families.PARTS.items():
        weights = tiny_models.load_weights(folders.models("checkpoints") / "SD 3" / part / "model.safetensors")
        write_weights(folders.models("text_encoders") / f"{name}.safetensors", weights)
    return folders.data


def step(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def ending(samples: list[str | int], vae: list[str | int]) -> dict[str, Any]:
    return {
        "decode": step("VAEDecode", samples=samples, vae=vae),
        "save": step("SaveImage", images=["decode", 0], filename_prefix="own"),
    }


def stable_diffusion_3(checkpoint: str, clip: list[str | int]) -> dict[str, Any]:
    """CLIPTextEncodeSD3, ModelSamplingSD3 and KSampler, with the text encoders of the checkpoint or others."""
    texts = dict.fromkeys(("clip_l", "clip_g", "t5xxl"), TEXT)
    files = {f"clip_name{at}": f"{name}.safetensors" for at, name in enumerate(("clip_g", "t5xxl", "clip_l"), 1)}
    away = dict.fromkeys(texts, "")
    return {
        "load": step("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "texts": step("TripleCLIPLoader", **files),
        "shift": step("ModelSamplingSD3", model=["load", 0], shift=3.0),
        "prompt": step("CLIPTextEncodeSD3", clip=clip, **texts, empty_padding="none"),
        "away": step("CLIPTextEncodeSD3", clip=clip, **away, empty_padding="none"),
        "latent": step("EmptySD3LatentImage", width=SIDE, height=SIDE, batch_size=1),
        "sample": step(
            "KSampler", model=["shift", 0], seed=1, steps=2, cfg=4.0, sampler_name="dpmpp_2m",
            scheduler="sgm_uniform", positive=["prompt", 0], negative=["away", 0], latent_image=["latent", 0],
            denoise=1.0,
        ),
        **ending(["sample", 0], ["load", 2]),
    }  # fmt: skip


def flux(prompt: dict[str, Any], model: dict[str, Any], latent: str = "EmptySD3LatentImage") -> dict[str, Any]:
    """UNETLoader, DualCLIPLoader, FluxGuidance, BasicGuider and SamplerCustomAdvanced."""
    return {
        "load": model,
        "texts": step("DualCLIPLoader", clip_name1="t5xxl.safetensors", clip_name2="clip_l.safetensors", type="flux"),
        "vae": step("VAELoader", vae_name="Flux dev.safetensors"),
        "shift": step(
            "ModelSamplingFlux", model=["load", 0], max_shift=1.15, base_shift=0.5, width=SIDE, height=SIDE
        ),
        "prompt": prompt,
        "guidance": step("FluxGuidance", conditioning=["prompt", 0], guidance=2.0),
        "latent": step(latent, width=SIDE, height=SIDE, batch_size=1),
        "noise": step("RandomNoise", noise_seed=1),
        "guider": step("BasicGuider", model=["shift", 0], conditioning=["guidance", 0]),
        "sampler": step("KSamplerSelect", sampler_name="euler"),
        "sigmas": step("BasicScheduler", model=["shift", 0], scheduler="simple", steps=2, denoise=1.0),
        "sample": step(
            "SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["sampler", 0],
            sigmas=["sigmas", 0], latent_image=["latent", 0],
        ),
        **ending(["sample", 0], ["vae", 0]),
    }  # fmt: skip


def picture(document: dict[str, Any], tmp_path: Path, data: Path) -> bytes:
    said = latentloom("run", saved(tmp_path, document), "--precision", "fp32", data=data)
    assert said.code == 0, said.err
    (path,) = said.files
    assert opened(path).size == (SIDE, SIDE)
    return opened(path).tobytes()


def test_stable_diffusion_3_runs_from_files_and_folders_to_the_same_picture(tmp_path: Path, data: Path):
    ways = (("SD 3.safetensors", "load", 1), ("SD 3", "load", 1), ("SD 3 bare.safetensors", "texts", 0))
    pictures = {picture(stable_diffusion_3(name, [node, at]), tmp_path, data) for name, node, at in ways}
    assert len(pictures) == 1


def test_flux_runs_from_files_and_folders_to_the_same_picture(tmp_path: Path, data: Path):
    plain = step("CLIPTextEncode", clip=["texts", 0], text=TEXT)
    own = step("CLIPTextEncodeFlux", clip=["texts", 0], clip_l=TEXT, t5xxl=TEXT, guidance=3.5)
    unet = step("UNETLoader", unet_name="Flux dev.safetensors", weight_dtype="default")
    whole = step("CheckpointLoaderSimple", ckpt_name="Flux dev")
    ways = ((plain, unet), (own, unet), (plain, whole))
    pictures = {picture(flux(prompt, model), tmp_path, data) for prompt, model in ways}
    pictures.add(picture(flux(plain, unet, "EmptyLatentImage"), tmp_path, data))
    assert len(pictures) == 1


def test_a_prompt_without_text_encoders_is_refused_with_what_to_load(tmp_path: Path, data: Path):
    document = stable_diffusion_3("SD 3 bare.safetensors", ["load", 1])
    said = latentloom("run", saved(tmp_path, document), data=data)
    assert said.code != 0
    told = " ".join(said.err.split())
    assert "holds no text encoder. Load them with TripleCLIPLoader" in told and "Traceback" not in told
