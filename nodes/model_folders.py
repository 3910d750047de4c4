"""References to the parts of a checkpoint in diffusers layout, by its configurations. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from graph.identity import content_identity, digest, encode
from nodes.folder_configurations import (
    Configuration,
    FlowConfiguration,
    PipelineIndex,
    PreviewConfiguration,
    SchedulerConfiguration,
    TextConfiguration,
    UnetConfiguration,
    VaeConfiguration,
)
from nodes.model_errors import ModelError
from nodes.pickles import permitted
from nodes.values import Clip, Model, PreviewMap, Told, Vae, Variant, Weights
from nodes.weight_files import read_header

C = TypeVar("C", bound=BaseModel)

PREVIEW = "preview.json"
"""Beside an autoencoder's weights: a linear map from its latents to RGB, where somebody has fitted one."""
UNET_STEM = VAE_STEM = "diffusion_pytorch_model"
TEXT_STEM = "model"
PICKLED = {TEXT_STEM: "pytorch_"}
"""How names of pickles begin, where they differ from those of safetensors."""

LAYOUT = (
    "A checkpoint is a folder in diffusers layout: model_index.json beside unet/, vae/, text_encoder/, tokenizer/ "
    "and scheduler/, with the weights as .safetensors."
)
ONLY_SD = "Models of the families Stable Diffusion 1, 2, XL and 3 and Flux can be used."
PIPELINES = frozenset(
    f"StableDiffusion{kind}Pipeline"
    for kind in ("", "Img2Img", "Inpaint", "InstructPix2Pix", "XL", "XLImg2Img", "XLInpaint", "XLInstructPix2Pix")
)
TEXT_PARTS = ("text_encoder", "text_encoder_2")
CLIP_VOCABULARY, T5_VOCABULARY = ("vocab.json", "merges.txt"), ("spiece.model",)
"""The files of a tokenizer that has no `tokenizer.json`."""
SIZE_WIDTH = 256
"""Numbers that each of SDXL's sizes is told in."""
TOLD: Mapping[int, Told] = {6: "sizes", 5: "sizes and score"}
"""By how many numbers a U-Net is told beside the pooled text."""
OPEN_LAYERS, OPEN_WIDTH = 23, 1024
"""Stable Diffusion 2's text encoder has 24 layers, of which diffusers keeps those that are used."""


def read_checkpoint(folder: Path, name: str) -> tuple[Model, Clip, Vae]:
    """References to the parts of a checkpoint. Reads configurations and file identities, never weights.

    Raises ModelError, which says what is missing or unsuitable and what to do.
    """
    index = read_index(folder)
    _check_pipeline(folder / "model_index.json", index)
    unet = read_configuration(folder / "unet" / "config.json", UnetConfiguration, LAYOUT)
    texts = [read_configuration(folder / part / "config.json", TextConfiguration, LAYOUT) for part, _ in index.encoders]
    vae = read_configuration(folder / "vae" / "config.json", VaeConfiguration, LAYOUT)
    _check_parts(folder, unet, texts)
    schedule = read_configuration(folder / "scheduler" / "scheduler_config.json", SchedulerConfiguration, LAYOUT)
    told = _told(folder, unet, texts[-1])
    model = Model(
        weights=part_weights(folder / "unet", UNET_STEM, name),
        prediction=schedule.prediction,
        levels=schedule.levels,
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule=schedule.beta_schedule,
        timesteps=schedule.num_train_timesteps,
        zero_terminal_snr=schedule.rescale_betas_zero_snr,
        latent_scale=vae.scale,
        latent_shift=vae.latents_mean or 0.0,
        latent_channels=vae.latent_channels,
        preview=_preview(folder / "vae" / PREVIEW, vae.latent_channels),
        variant=_variant(folder, unet, vae),
        told=told,
    )
    clips = [
        _clip(folder, name, part, tokenizer, text, told)
        for (part, tokenizer), text in zip(index.encoders, texts, strict=True)
    ]
    clip = replace(clips[0], further=tuple(clips[1:]))
    return model, clip, vae_reference(folder / "vae", name, vae)


def read_index(folder: Path) -> PipelineIndex:
    """Which parts a checkpoint has. Raises ModelError."""
    _refuse_file(folder, LAYOUT)
    return read_configuration(folder / "model_index.json", PipelineIndex, LAYOUT)


def _clip(folder: Path, name: str, part: str, tokenizer: str, text: TextConfiguration, told: Told) -> Clip:
    """A text encoder as its family uses it."""
    weights = part_weights(folder / part, TEXT_STEM, name)
    words = tokenizer_files(folder / tokenizer, name)
    if told != "nothing":
        open = part == TEXT_PARTS[1]
        return Clip(weights, words, layer=-2, normed=False, projected=open, tower="CLIP-G" if open else "CLIP-L")
    if (text.num_hidden_layers, text.hidden_size) == (OPEN_LAYERS, OPEN_WIDTH):
        return Clip(weights, words, layer=-2, left_out=1, tower="CLIP-H")
    return Clip(weights, words)


def _told(folder: Path, unet: UnetConfiguration, text: TextConfiguration) -> Told:
    """What the U-Net is told beside the text: as much as its input has room for behind the pooled state."""
    if unet.addition_embed_type is None:
        return "nothing"
    room = (unet.projection_class_embeddings_input_dim or 0) - text.projection_dim
    found = TOLD.get(room // SIZE_WIDTH)
    if found is None or room % SIZE_WIDTH:
        expected = " or ".join(f"{count} x {SIZE_WIDTH}" for count in TOLD)
        reason = f"unet/ is told {room} numbers beside the pooled text, not {expected}"
        raise ModelError(folder, reason, "Take all folders from one checkpoint.")
    return found


def _variant(folder: Path, unet: UnetConfiguration, vae: VaeConfiguration) -> Variant:
    known: dict[int, Variant] = {
        vae.latent_channels: "plain",
        2 * vae.latent_channels + 1: "inpainting",
        2 * vae.latent_channels: "pix2pix",
    }
    found = known.get(unet.in_channels)
    if found is None:
        raise ModelError(
            folder,
            f"unet/ takes {unet.in_channels} channels, vae/ makes {vae.latent_channels}",
            "Take all folders from one checkpoint.",
        )
    return found


def made_by_openai(folder: Path) -> bool:
    """Whether a text encoder's configuration has the activation of OpenAI's. Raises ModelError."""
    return read_configuration(folder / "config.json", TextConfiguration, LAYOUT).hidden_act == "quick_gelu"


def scheduler_beside(folder: Path) -> SchedulerConfiguration | None:
    """How a U-Net was trained, where its folder lies beside its scheduler's. Raises ModelError."""
    path = folder.parent / "scheduler" / "scheduler_config.json"
    return read_configuration(path, SchedulerConfiguration, LAYOUT) if folder.is_dir() and path.is_file() else None


def flow_beside(folder: Path) -> FlowConfiguration | None:
    """How a transformer was trained, where its folder lies beside its scheduler's. Raises ModelError."""
    path = folder.parent / "scheduler" / "scheduler_config.json"
    return read_configuration(path, FlowConfiguration, LAYOUT) if folder.is_dir() and path.is_file() else None


def vae_beside(folder: Path) -> VaeConfiguration | None:
    """The VAE whose latents a U-Net was trained on, where its folder lies beside it. Raises ModelError."""
    path = folder.parent / "vae" / "config.json"
    return read_configuration(path, VaeConfiguration, LAYOUT) if folder.is_dir() and path.is_file() else None


def read_vae(folder: Path, name: str) -> Vae:
    """A reference to an autoencoder in a folder of its own. Raises ModelError."""
    layout = "A VAE is a folder with config.json and diffusion_pytorch_model.safetensors, as in diffusers."
    _refuse_file(folder, layout)
    return vae_reference(folder, name, read_configuration(folder / "config.json", VaeConfiguration, layout))


def vae_reference(folder: Path, name: str, config: VaeConfiguration) -> Vae:
    """A reference to the autoencoder of a configuration. Raises ModelError."""
    if config.class_name != "AutoencoderKL":
        raise ModelError(folder, f"this is a {config.class_name}, not an AutoencoderKL", ONLY_SD)
    return Vae(
        weights=part_weights(folder, VAE_STEM, name),
        factor=2 ** (len(config.block_out_channels) - 1),
        latent_channels=config.latent_channels,
    )


def _preview(path: Path, channels: int) -> PreviewMap | None:
    """The linear map to RGB, if the folder has one."""
    if not path.is_file():
        return None
    advice = "Delete the file: previews are then in colours known for this kind of latent, or grey."
    found = read_configuration(path, PreviewConfiguration, advice)
    if len(found.weight) != channels:
        raise ModelError(path, f"its weight has {len(found.weight)} rows for {channels} latent channels", advice)
    return PreviewMap(found.weight, found.bias)


def _refuse_file(path: Path, layout: str) -> None:
    if path.is_dir():
        return
    if not path.exists():
        raise ModelError(path, "there is no such model", layout)
    permitted(path)
    raise ModelError(path, "this is not a model", layout)


def read_configuration(path: Path, config: type[C], layout: str) -> C:
    """What a file says. Raises ModelError, which tells the layout where the file is missing."""
    if not path.is_file():
        raise ModelError(path.parent, f"{path.name} is missing", layout)
    try:
        return config.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(path, f"the file cannot be read ({error.strerror or error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(path, f"{where}: {first['msg']}" if where else first["msg"], ONLY_SD) from error


def _check_pipeline(path: Path, index: PipelineIndex) -> None:
    if index.class_name not in PIPELINES:
        raise ModelError(path, f"this is a {index.class_name}, not a StableDiffusionPipeline", ONLY_SD)
    expected = {
        "unet": (index.unet, "UNet2DConditionModel"),
        "vae": (index.vae, "AutoencoderKL"),
        "scheduler": (index.scheduler, None),
    }
    for part, tokenizer in index.encoders or [("text_encoder", "tokenizer")]:
        expected[part] = (getattr(index, part), "CLIPTextModel")
        expected[tokenizer] = (getattr(index, tokenizer), "CLIPTokenizer")
    for part, ((_, found), wanted) in expected.items():
        if found is None:
            raise ModelError(path, f"it names no {part}", LAYOUT)
        if wanted is not None and found.removesuffix("Fast").removesuffix("WithProjection") != wanted:
            raise ModelError(path, f"its {part} is a {found}, not a {wanted}", ONLY_SD)
        if not (path.parent / part).is_dir():
            raise ModelError(path.parent, f"the folder {part}/ is missing", LAYOUT)


def _check_parts(folder: Path, unet: UnetConfiguration, texts: Sequence[TextConfiguration]) -> None:
    """The parts of one checkpoint must fit together."""
    if unet.extras:
        raise ModelError(folder / "unet", f"the network expects more than latent and text ({unet.extras[0]})", ONLY_SD)
    for text in texts:
        if text.model_type != "clip_text_model":
            raise ModelError(folder, f"a text encoder is a {text.model_type}, not a clip_text_model", ONLY_SD)
    width = sum(text.hidden_size for text in texts)
    if unet.cross_attention_dim != width:
        raise ModelError(
            folder,
            f"the parts do not belong together: unet/ expects text states of width {unet.cross_attention_dim}, "
            f"the text encoder makes {width}",
            "Take all folders from one checkpoint.",
        )


class _ShardIndex(Configuration):
    weight_map: dict[str, str]


def weight_files(folder: Path, stem: str) -> tuple[Path, ...]:
    """The files that hold a part's weights: the plain one, its shards, or the fp16 variant; pickles if all else fails.

    Raises ModelError, also where there are but pickles and nobody has allowed them.
    """
    for suffix, start in ((".safetensors", ""), (".bin", PICKLED.get(stem, ""))):
        for variant in ("", ".fp16"):
            single = folder / f"{start}{stem}{variant}{suffix}"
            shards = folder / f"{start}{stem}{suffix}.index{variant}.json"
            if single.is_file() or shards.is_file():
                files = (single,) if single.is_file() else _shards(shards)
                return tuple(map(permitted, files))
    raise ModelError(folder, f"{stem}.safetensors is missing", "Copy or download the missing file.")


def _shards(index: Path) -> tuple[Path, ...]:
    names = sorted(set(read_configuration(index, _ShardIndex, LAYOUT).weight_map.values()))
    files = tuple(index.parent / Path(name).name for name in names)
    for file in files:
        if not file.is_file():
            raise ModelError(file, "a part of the weights is missing", "Copy or download the missing file.")
    return files


def part_weights(folder: Path, stem: str, name: str) -> Weights:
    """A reference to one part: its configuration and its weights, which are checked to be whole."""
    files = weight_files(folder, stem)
    for file in files:
        read_header(file)
    return Weights(folder, _identity([folder / "config.json", *files]), name)


def tokenizer_files(folder: Path, name: str, parts: Sequence[str] = CLIP_VOCABULARY) -> Weights:
    """A reference to a tokenizer: `tokenizer.json`, or the `parts` that stand for it. Raises ModelError."""
    if not (folder / "tokenizer.json").is_file():
        for file in parts:
            if not (folder / file).is_file():
                raise ModelError(folder, f"{file} is missing, and there is no tokenizer.json", LAYOUT)
    known = ("tokenizer.json", *parts, "tokenizer_config.json", "special_tokens_map.json")
    return Weights(folder, _identity([folder / file for file in known if (folder / file).is_file()]), name)


def _identity(files: Sequence[Path]) -> str:
    try:
        return digest(b"part", *(encode([path.name, content_identity(path)]) for path in files)).hex()
    except OSError as error:
        raise ModelError(files[0].parent, f"the files cannot be read ({error.strerror or error})") from error
