"""unCLIP: pictures as prompts, as diffusers' pipeline takes them."""

from dataclasses import replace
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
from nodes.clip_vision import encode_clip_vision, load_clip_vision
from nodes.engine import Engine, built_in
from nodes.identification import Identified, identify
from nodes.latents import empty_latent
from nodes.maths.clip_pictures import clip_pictures
from nodes.maths.noise_augmentation import augmented, kept_share
from nodes.model_errors import ModelError
from nodes.model_saving import save_checkpoint
from nodes.sampling import ksampler, ksampler_advanced
from nodes.text import encode_text
from nodes.unclip import add_pictures, load_unclip_checkpoint
from nodes.values import Image, Latent
from tests import original_layouts as layouts
from tests import picture_encoders, small_models, tiny_models
from tests.original_layouts import below
from tests.small_models import SMALL
from tests.test_families import near, start
from tests.test_identification import entries

TEXT, AWAY, STEPS, CFG, SEED, SIDE = "the blue cat", "dog", 4, 5.0, 3, 64
ENCODER = picture_encoders.tiny()
SPACE = picture_encoders.SPACE
MEAN, SPREAD = (torch.rand(1, SPACE, generator=torch.Generator().manual_seed(seed)) + 0.5 for seed in (1, 2))


def pixels(seed: int) -> Tensor:
    return torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(seed))


@node("Picture")
def picture(seed: int = 1) -> Image:
    """A picture of noise."""
    return Image(pixels(seed))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    found = Folders.below(tmp_path_factory.mktemp("data"))
    tokenizer = found.models("tokenizers") / "clip"
    tiny_models.write_tokenizer(tokenizer)
    path = found.models("checkpoints") / "unclip.safetensors"
    weights = small_models.write_file(path, SMALL["unCLIP"], tokenizer)
    small_models.write_folder(found.data / "folder", SMALL["unCLIP"], weights)
    seeing = picture_encoders.as_open_clip(dict(ENCODER.state_dict()))
    more = {f"embedder.model.{name}": tensor for name, tensor in seeing.items()}
    statistics = {"noise_augmentor.data_mean": MEAN, "noise_augmentor.data_std": SPREAD}
    layouts.write_weights(path, weights | more | statistics | {"noise_augmentor.betas": torch.zeros(1000)})
    small_models.write_file(found.models("checkpoints") / "plain.safetensors", SMALL["SD 2"], tokenizer)
    return found


@pytest.fixture(scope="module")
def engine(folders: Folders) -> Engine:
    return Engine(folders, catalogue=built_in() | Catalogue([picture]), precision="fp32")


def shown(
    *pictures: tuple[int, float, float], seed: int = SEED, parts: bool = False
) -> tuple[WorkflowBuilder, list[str]]:
    """A workflow whose prompt has pictures, each by its number, strength and noise; sampled whole, or in two parts."""
    with WorkflowBuilder() as workflow:
        model, clip, _, clip_vision = load_unclip_checkpoint(ckpt_name="unclip.safetensors")
        positive: Any = encode_text(text=TEXT, clip=clip)
        for number, strength, noise in pictures:
            seen = encode_clip_vision(clip_vision, picture(number), "none")
            positive = add_pictures(positive, seen, strength=strength, noise_augmentation=noise)
        asked: Any = {
            "model": model, "steps": STEPS, "cfg": CFG, "sampler_name": "euler", "scheduler": "normal",
            "positive": positive, "negative": encode_text(text=AWAY, clip=clip),
        }  # fmt: skip
        latent: Any = empty_latent(SIDE, SIDE, 2)
        if parts:
            latent = ksampler_advanced(
                **asked, noise_seed=seed, latent_image=latent, end_at_step=2, return_with_leftover_noise="enable"
            )
            latent = ksampler_advanced(
                **asked, noise_seed=seed, latent_image=latent, add_noise="disable", start_at_step=2
            )
        else:
            latent = ksampler(**asked, seed=seed, latent_image=latent)
    return workflow, [latent.step]


def sampled(engine: Engine, *pictures: tuple[int, float, float], seed: int = SEED, parts: bool = False) -> Tensor:
    workflow, [step] = shown(*pictures, seed=seed, parts=parts)
    return cast(Latent, engine.run(workflow, targets=[step]).checked().outputs[step][0]).samples


def pipeline(folder: Path) -> Any:
    import diffusers
    import transformers

    lib, folder = cast(Any, diffusers), folder / "folder"
    normalizer = lib.pipelines.stable_diffusion.StableUnCLIPImageNormalizer(SPACE)
    normalizer.mean.data, normalizer.std.data = MEAN, SPREAD
    made = lib.StableUnCLIPImg2ImgPipeline(
        feature_extractor=None,
        image_encoder=ENCODER,
        image_normalizer=normalizer,
        image_noising_scheduler=lib.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=cast(Any, transformers).CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=cast(Any, transformers).CLIPTextModel.from_pretrained(folder / "text_encoder"),
        unet=lib.UNet2DConditionModel.from_pretrained(folder / "unet"),
        scheduler=lib.EulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
        vae=lib.AutoencoderKL.from_pretrained(folder / "vae"),
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(("noise", "level"), [(0.0, 0), (0.3, 300)])
def test_the_latents_are_those_of_diffusers_pipeline(noise: float, level: int, folders: Folders, engine: Engine):
    made = pipeline(folders.data)
    # Alone among diffusers' pipelines it does not scale the latents that it is given.
    noisy = start() * made.scheduler.init_noise_sigma
    theirs = made(
        image=clip_pictures(pixels(1), 32, crop=False), prompt=TEXT, negative_prompt=AWAY, num_images_per_prompt=2,
        num_inference_steps=STEPS, guidance_scale=CFG, output_type="latent", latents=noisy, height=SIDE, width=SIDE,
        noise_level=level, generator=torch.Generator().manual_seed(SEED - 10),
    ).images  # fmt: skip
    ours = sampled(engine, (1, 1.0, noise))
    near(ours * 0.18215, theirs)
    assert not torch.allclose(ours, sampled(engine))


def test_several_pictures_are_summed_by_strength_and_noised_again(engine: Engine):
    from nodes.models import ModelPool
    from nodes.picture_labels import labelled
    from nodes.picture_prompts import PicturePrompt
    from nodes.values import Conditioning, Prompt

    pool = ModelPool("fp32", "cpu")
    model = load_unclip_checkpoint("unclip.safetensors", folders=engine.folders).MODEL
    seen = [ENCODER(clip_pictures(pixels(number), 32, crop=False)).image_embeds for number in (1, 2)]
    prompt = Prompt(
        torch.zeros(1, 3, 64), pictures=(PicturePrompt(seen[0], 0.5, 0.0), PicturePrompt(seen[1], -2.0, 0.1))
    )
    [found] = labelled(pool, model, Conditioning((prompt,)), 15).prompts
    each = [augmented(seen[0], MEAN, SPREAD, 0, 5) * 0.5, augmented(seen[1], MEAN, SPREAD, 100, 5) * -2.0]
    expected = augmented((each[0] + each[1])[:, :SPACE], MEAN, SPREAD, 50, 5)
    assert found.label is not None
    torch.testing.assert_close(found.label, expected)
    [nothing] = labelled(pool, model, Conditioning((replace(prompt, pictures=()),)), 15).prompts
    assert nothing.label is not None and nothing.label.shape == (1, 2 * SPACE) and not nothing.label.any()


def test_the_schedule_of_the_noise_is_that_of_diffusers():
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    theirs = cast(Any, DDPMScheduler)(beta_schedule="squaredcos_cap_v2").alphas_cumprod
    ours = torch.tensor([kept_share(level) for level in (0, 1, 300, 998, 999)])
    torch.testing.assert_close(ours, theirs[[0, 1, 300, 998, 999]], rtol=1e-4, atol=1e-7)


def test_sampling_whole_and_in_parts_is_the_same(engine: Engine):
    assert torch.equal(sampled(engine, (1, 1.0, 0.3)), sampled(engine, (1, 1.0, 0.3), parts=True))


def test_keys_change_exactly_when_the_picture_would(engine: Engine):
    def key(*pictures: tuple[int, float, float], seed: int = SEED) -> Any:
        workflow, [step] = shown(*pictures, seed=seed)
        return engine.keys(engine.resolve(workflow, targets=[step]))[step]

    asked = [(1, 1.0, 0.3), (2, 1.0, 0.3), (1, 0.5, 0.3), (1, 1.0, 0.2)]
    assert len({key(each) for each in asked} | {key(), key(*asked), key(asked[0], seed=4)}) == 7
    assert key(asked[0]) == key(asked[0])
    assert len({sampled(engine, each).sum().item() for each in asked}) == 4
    assert torch.equal(sampled(engine, (1, 0.0, 0.3)), sampled(engine))


def test_other_checkpoints_and_other_encoders_pictures_are_refused(engine: Engine, folders: Folders):
    with pytest.raises(ModelError, match="takes no picture as a prompt, as unCLIP's does. Load it with CheckpointLoad"):
        load_unclip_checkpoint("plain.safetensors", folders=folders)
    with pytest.raises(ModelError, match="this is a folder"):
        load_unclip_checkpoint("loomlet", folders=folders)
    other = picture_encoders.tiny(space=12)
    picture_encoders.write_file(folders.models("clip_vision") / "other.safetensors", other)
    with WorkflowBuilder() as workflow:
        model, clip, _, _ = load_unclip_checkpoint(ckpt_name="unclip.safetensors")
        seen = encode_clip_vision(load_clip_vision(clip_name="other.safetensors"), picture(1))
        text = encode_text(text=TEXT, clip=clip)
        latent: Any = ksampler(
            model=model, positive=add_pictures(text, seen), negative=text, latent_image=empty_latent(SIDE, SIDE)
        )
    failed = engine.run(workflow, targets=[latent.step])
    assert f"encoded into 12 numbers, where the model is told {SPACE}" in str(failed.failures)


def test_a_saved_checkpoint_paints_the_same_picture(engine: Engine, folders: Folders, tmp_path: Path):
    there = Folders(data=folders.data, output=tmp_path)
    with WorkflowBuilder() as workflow:
        model, clip, vae, _ = load_unclip_checkpoint(ckpt_name="unclip.safetensors")
        save_checkpoint(model, clip, vae, "saved")
    Engine(there, catalogue=engine.catalogue).run(workflow).checked()
    [file] = tmp_path.rglob("*.safetensors")
    file.rename(folders.models("checkpoints") / "saved.safetensors")
    with WorkflowBuilder() as workflow:
        seeing = load_unclip_checkpoint(ckpt_name="unclip.safetensors")[3]
        model, clip, _ = load_checkpoint(ckpt_name="saved.safetensors")
        positive: Any = add_pictures(encode_text(text=TEXT, clip=clip), encode_clip_vision(seeing, picture(1), "none"))
        latent: Any = ksampler(
            model=model, seed=SEED, steps=STEPS, cfg=CFG, sampler_name="euler", scheduler="normal",
            positive=positive, negative=encode_text(text=AWAY, clip=clip), latent_image=empty_latent(SIDE, SIDE, 2),
        )  # fmt: skip
    again = cast(Latent, engine.run(workflow, targets=[latent.step]).checked().outputs[latent.step][0]).samples
    assert torch.equal(again, sampled(engine, (1, 1.0, 0.0)))


def test_files_of_full_size_are_told_by_their_shapes():
    text = {layouts.OPEN: layouts.open_clip(replace(layouts.OPEN_H, layers=24))}
    for space, encoder in ((1024, picture_encoders.VIT_H), (768, picture_encoders.VIT_L)):
        whole = layouts.checkpoint(replace(layouts.SD2, told=2 * space), text)
        seeing = below("embedder.model.", picture_encoders.open_clip_shapes(encoder))
        statistics = {"noise_augmentor.data_mean": (1, space), "noise_augmentor.data_std": (1, space)}
        found = identify(entries(whole | seeing | statistics))
        assert isinstance(found, Identified) and str(found) == "SD 2 unCLIP checkpoint (original layout)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_augmentor.data_std": torch.ones(1, 7)}, r"noise_augmentor.data_std is \[1, 7\] instead of \[1, 24\]"),
        ({"noise_augmentor.data_std": None}, "noise_augmentor.data_std is missing"),
    ],
)
def test_statistics_that_do_not_fit_are_named(change: dict[str, Any], message: str, folders: Folders, tmp_path: Path):
    from nodes.models import ModelPool
    from nodes.picture_labels import labelled
    from nodes.values import Conditioning

    weights = tiny_models.load_weights(folders.models("checkpoints") / "unclip.safetensors") | change
    there = Folders.below(tmp_path)
    tiny_models.write_tokenizer(there.models("tokenizers") / "clip")
    kept = {name: tensor for name, tensor in weights.items() if tensor is not None}
    layouts.write_weights(there.models("checkpoints") / "odd.safetensors", kept)
    model = load_unclip_checkpoint("odd.safetensors", folders=there).MODEL
    with pytest.raises(ModelError, match=message):
        labelled(ModelPool("fp32", "cpu"), model, Conditioning(()), 0)
