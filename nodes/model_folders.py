"""What lies in the model folders: which checkpoints there are, and what their configurations say. Imports no torch."""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from graph.folders import MODEL_SUFFIXES, Folders, inside
from graph.identity import content_identity, digest, encode
from nodes.embedded import LOOMLET
from nodes.latent_scale import EDM_SIGMA_DATA, PLAYGROUND_LEVELS
from nodes.model_errors import ModelError
from nodes.pickles import permitted, readable
from nodes.values import Clip, ContinuousLevels, Model, PreviewMap, Scale, Told, Vae, Variant, Weights
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
ONLY_SD = "Models of the families Stable Diffusion 1, 2 and XL can be used."
PIPELINES = frozenset(
    f"StableDiffusion{kind}Pipeline"
    for kind in ("", "Img2Img", "Inpaint", "InstructPix2Pix", "XL", "XLImg2Img", "XLInpaint", "XLInstructPix2Pix")
)
TEXT_PARTS = ("text_encoder", "text_encoder_2")
SIZE_WIDTH = 256
"""Numbers that each of SDXL's sizes is told in."""
TOLD: Mapping[int, Told] = {6: "sizes", 5: "sizes and score"}
"""By how many numbers a U-Net is told beside the pooled text."""
OPEN_LAYERS, OPEN_WIDTH = 23, 1024
"""Stable Diffusion 2's text encoder has 24 layers, of which diffusers keeps those that are used."""


class CheckpointSource:
    """The checkpoints on offer: the user's, and the embedded model unless the user has one of that name."""

    def names(self, folders: Folders) -> Sequence[str]:
        own = _model_names(folders.models("checkpoints"), "model_index.json")
        embedded = {LOOMLET.name} if (LOOMLET / "model_index.json").is_file() else set[str]()
        return sorted({*own} | embedded)

    def locate(self, folders: Folders, name: str) -> Path:
        path = inside(folders.models("checkpoints"), name)
        if path.exists() and path != folders.models("checkpoints").resolve():
            return permitted(path)
        if name == LOOMLET.name and LOOMLET.is_dir():
            return LOOMLET
        raise _unknown(path, "checkpoint", name, self.names(folders))


class PartSource:
    """Parts of models in folders of their own: single files, and folders in diffusers layout.

    Args:
        kinds: the folders below `models/` that hold them; the first is the one to use.
    """

    def __init__(self, noun: str, *kinds: str) -> None:
        self._noun = noun
        self._kinds = kinds

    def names(self, folders: Folders) -> Sequence[str]:
        return sorted({name for kind in self._kinds for name in _model_names(folders.models(kind), "config.json")})

    def locate(self, folders: Folders, name: str) -> Path:
        for kind in self._kinds:
            path = inside(folders.models(kind), name)
            if path.exists() and path != folders.models(kind).resolve():
                return permitted(path)
        raise _unknown(inside(folders.models(self._kinds[0]), name), self._noun, name, self.names(folders))


class PipelineSource:
    """The folders in `models/diffusers/` that are whole checkpoints."""

    def names(self, folders: Folders) -> Sequence[str]:
        root = folders.models("diffusers")
        return [name for name in _model_names(root, "model_index.json") if (root / name).is_dir()]

    def locate(self, folders: Folders, name: str) -> Path:
        path = inside(folders.models("diffusers"), name)
        if not (path / "model_index.json").is_file():
            raise _unknown(path, "folder with a model_index.json", name, self.names(folders))
        return path


class VaeSource(PartSource):
    """The autoencoders in `models/vae/`."""

    def __init__(self) -> None:
        super().__init__("VAE", "vae")


def _unknown(path: Path, kind: str, name: str, names: Sequence[str]) -> ModelError:
    near = difflib.get_close_matches(name, names, n=1)
    known = ", ".join(names[:20]) or "none"
    return ModelError(
        path, f"there is no {kind} {name!r}", f"Did you mean {near[0]!r}?" if near else f"There are: {known}."
    )


def _model_names(folder: Path, marker: str) -> list[str]:
    """Folders that hold the marker file, and single model files outside them, by their path below `folder`."""
    return sorted(path.relative_to(folder).as_posix() for path in _models_below(folder, folder, marker))


def _models_below(root: Path, folder: Path, marker: str) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    if folder != root and any(entry.name == marker for entry in entries):
        yield folder
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=not _is_loop(Path(entry.path))):
            yield from _models_below(root, Path(entry.path), marker)
        elif Path(entry.name).suffix.lower() in readable(MODEL_SUFFIXES):
            yield Path(entry.path)


def _is_loop(path: Path) -> bool:
    """Whether a link leads to a folder that the path itself lies in."""
    return path.is_symlink() and path.absolute().is_relative_to(path.resolve())


class _Config(BaseModel):
    """One JSON file of a model. Unknown keys are ignored, as newer versions add some."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class _Index(_Config):
    class_name: str = Field(alias="_class_name")
    unet: tuple[str | None, str | None] = (None, None)
    vae: tuple[str | None, str | None] = (None, None)
    text_encoder: tuple[str | None, str | None] = (None, None)
    text_encoder_2: tuple[str | None, str | None] = (None, None)
    tokenizer: tuple[str | None, str | None] = (None, None)
    tokenizer_2: tuple[str | None, str | None] = (None, None)
    scheduler: tuple[str | None, str | None] = (None, None)

    @property
    def encoders(self) -> list[tuple[str, str]]:
        """The folders of text encoders, each with that of its tokenizer."""
        known = {"text_encoder": self.text_encoder, "text_encoder_2": self.text_encoder_2}
        return [(part, part.replace("text_encoder", "tokenizer")) for part, (_, kind) in known.items() if kind]


class _Unet(_Config):
    in_channels: int = 4
    cross_attention_dim: int | list[int] = 1280
    addition_embed_type: str | None = None
    projection_class_embeddings_input_dim: int | None = None
    class_embed_type: str | None = None
    encoder_hid_dim: int | None = None

    @property
    def extras(self) -> list[str]:
        """Inputs beside the latent and the text that a network of another family would expect."""
        names = ("addition_embed_type", "class_embed_type", "encoder_hid_dim")
        return [name for name in names if getattr(self, name) not in (None, "text_time")]


class _TextEncoder(_Config):
    hidden_size: int = 512
    projection_dim: int = 512
    num_hidden_layers: int = 12
    model_type: str = "clip_text_model"
    hidden_act: str = "quick_gelu"


class _Vae(_Config):
    class_name: str = Field(default="AutoencoderKL", alias="_class_name")
    block_out_channels: list[int] = Field(default=[64], min_length=1)
    latent_channels: int = 4
    scaling_factor: float = 0.18215
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[Annotated[float, Field(gt=0)], ...] | None = None

    @model_validator(mode="after")
    def _as_many_as_channels(self) -> Self:
        for numbers in (self.latents_mean, self.latents_std):
            if numbers is not None and len(numbers) != self.latent_channels:
                raise ValueError(f"{len(numbers)} statistics for {self.latent_channels} latent channels")
        return self

    @property
    def scale(self) -> Scale:
        deviations = self.latents_std
        return self.scaling_factor if deviations is None else tuple(self.scaling_factor / each for each in deviations)


class _Preview(_Config):
    weight: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float]


class _Scheduler(_Config):
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    beta_start: float = Field(default=0.0001, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)
    beta_schedule: Literal["scaled_linear", "linear"] = "linear"
    num_train_timesteps: int = Field(default=1000, ge=2)
    rescale_betas_zero_snr: bool = False
    class_name: str = Field(default="", alias="_class_name")
    sigma_min: float | None = Field(default=None, gt=0)
    sigma_max: float | None = Field(default=None, gt=0)
    sigma_data: float = Field(default=EDM_SIGMA_DATA, gt=0)
    trained_betas: None = None

    @field_validator("trained_betas", mode="before")
    @classmethod
    def _no_table(cls, value: Any) -> None:
        if value is not None:
            raise ValueError("a table of trained betas is not supported")

    @property
    def levels(self) -> ContinuousLevels | None:
        """Those of Karras et al. (2022), if the network was trained on them."""
        if not self.class_name.startswith("EDM"):
            return None
        lowest, highest = PLAYGROUND_LEVELS  # which are the paper's
        return ContinuousLevels(self.sigma_min or lowest, self.sigma_max or highest, self.sigma_data)


def read_checkpoint(folder: Path, name: str) -> tuple[Model, Clip, Vae]:
    """References to the parts of a checkpoint. Reads configurations and file identities, never weights.

    Raises ModelError, which says what is missing or unsuitable and what to do.
    """
    _refuse_file(folder, LAYOUT)
    index = _read(folder / "model_index.json", _Index, LAYOUT)
    _check_pipeline(folder / "model_index.json", index)
    unet = _read(folder / "unet" / "config.json", _Unet, LAYOUT)
    texts = [_read(folder / part / "config.json", _TextEncoder, LAYOUT) for part, _ in index.encoders]
    vae = _read(folder / "vae" / "config.json", _Vae, LAYOUT)
    _check_parts(folder, unet, texts, vae)
    schedule = _read(folder / "scheduler" / "scheduler_config.json", _Scheduler, LAYOUT)
    levels, told = schedule.levels, _told(folder, unet, texts[-1])
    model = Model(
        weights=part_weights(folder / "unet", UNET_STEM, name),
        prediction="edm" if levels and schedule.prediction_type == "epsilon" else schedule.prediction_type,
        levels=levels,
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
    clip = replace(clips[0], second=clips[1]) if len(clips) > 1 else clips[0]
    return model, clip, _vae_reference(folder / "vae", name, vae)


def _clip(folder: Path, name: str, part: str, tokenizer: str, text: _TextEncoder, told: Told) -> Clip:
    """A text encoder as its family uses it."""
    weights = part_weights(folder / part, TEXT_STEM, name)
    words = tokenizer_files(folder / tokenizer, name)
    if told != "nothing":
        return Clip(weights, words, layer=-2, normed=False, projected=part == TEXT_PARTS[1])
    if (text.num_hidden_layers, text.hidden_size) == (OPEN_LAYERS, OPEN_WIDTH):
        return Clip(weights, words, layer=-2, left_out=1)
    return Clip(weights, words)


def _told(folder: Path, unet: _Unet, text: _TextEncoder) -> Told:
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


def _variant(folder: Path, unet: _Unet, vae: _Vae) -> Variant:
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
    return _read(folder / "config.json", _TextEncoder, LAYOUT).hidden_act == "quick_gelu"


def prediction_beside(folder: Path) -> Literal["epsilon", "v_prediction", "sample"] | None:
    """What a U-Net predicts, where its folder lies beside its scheduler's. Raises ModelError."""
    path = folder.parent / "scheduler" / "scheduler_config.json"
    return _read(path, _Scheduler, LAYOUT).prediction_type if folder.is_dir() and path.is_file() else None


def read_vae(folder: Path, name: str) -> Vae:
    """A reference to an autoencoder in a folder of its own. Raises ModelError."""
    layout = "A VAE is a folder with config.json and diffusion_pytorch_model.safetensors, as in diffusers."
    _refuse_file(folder, layout)
    return _vae_reference(folder, name, _read(folder / "config.json", _Vae, layout))


def _vae_reference(folder: Path, name: str, config: _Vae) -> Vae:
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
    found = _read(path, _Preview, advice)
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


def _read(path: Path, config: type[C], layout: str) -> C:
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


def _check_pipeline(path: Path, index: _Index) -> None:
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


def _check_parts(folder: Path, unet: _Unet, texts: Sequence[_TextEncoder], vae: _Vae) -> None:
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


class _ShardIndex(_Config):
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
    names = sorted(set(_read(index, _ShardIndex, LAYOUT).weight_map.values()))
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


def tokenizer_files(folder: Path, name: str) -> Weights:
    """A reference to a tokenizer: `tokenizer.json`, or `vocab.json` with `merges.txt`."""
    if not (folder / "tokenizer.json").is_file():
        for file in ("vocab.json", "merges.txt"):
            if not (folder / file).is_file():
                raise ModelError(folder, f"{file} is missing, and there is no tokenizer.json", LAYOUT)
    known = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
    return Weights(folder, _identity([folder / file for file in known if (folder / file).is_file()]), name)


def _identity(files: Sequence[Path]) -> str:
    try:
        return digest(b"part", *(encode([path.name, content_identity(path)]) for path in files)).hex()
    except OSError as error:
        raise ModelError(files[0].parent, f"the files cannot be read ({error.strerror or error})") from error
