"""Models in one file, and parts of them in folders: references, from headers alone. Imports no torch."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Literal

from graph.folders import Folders
from graph.identity import content_identity, digest, encode
from nodes.identification import Family, Identified, Unrecognised, identify, with_article
from nodes.latent_scale import EDM_SIGMA_DATA, PLAYGROUND_LEVELS, PLAYGROUND_SCALE, PLAYGROUND_SHIFT
from nodes.model_errors import ModelError
from nodes.model_folders import (
    OPEN_LAYERS,
    OPEN_WIDTH,
    TEXT_STEM,
    UNET_STEM,
    flow_beside,
    made_by_openai,
    part_weights,
    scheduler_beside,
    vae_beside,
    weight_files,
)
from nodes.network_layout import network_plan
from nodes.safetensors_header import AGAIN, Header, TensorEntry
from nodes.t5_layout import is_t5 as has_t5
from nodes.t5_layout import t5_plan
from nodes.text_layout import text_plan
from nodes.text_references import absent, family_by_texts, is_t5, text_reference, together, tower_of
from nodes.tokenizer_files import find_tokenizer
from nodes.transformer_models import LATENTS, as_configured, transformer_model
from nodes.unet_layout import unet_plan
from nodes.vae_layout import vae_plan
from nodes.values import Clip, ContinuousLevels, Model, Prediction, Told, Vae, Weights
from nodes.weight_files import read_whole_header
from nodes.weight_places import NetworkPlan, NotThisNetwork, shapes_below

log = logging.getLogger("latentloom.models")

LATENT_SCALES: Mapping[Family, float] = {"SD 1": 0.18215, "SD 2": 0.18215, "SDXL": 0.13025, "SDXL refiner": 0.13025}
TOLD: Mapping[Family, Told] = {"SD 1": "nothing", "SD 2": "nothing", "SDXL": "sizes", "SDXL refiner": "sizes and score"}
EPSILON_SIZE = "512"
"""In the name of a Stable Diffusion 2 file: it was trained at this size, and so predicts noise."""

PLAYGROUND_MARK = "edm_mean"
LEVEL_MARKS = ("edm_vpred.sigma_min", "edm_vpred.sigma_max")
CONTINUOUS_LEVELS = (0.002, 120.0)
"""What the two are where a file states only one."""
STATISTICS = "noise_augmentor."
"""How the names of unCLIP's mean and spread of CLIP's pictures start."""

TrainedPrediction = Literal["epsilon", "v_prediction", "sample"]
Encoder = tuple[Weights, NetworkPlan]
"""A text encoder, and how it is built."""


def read_single_checkpoint(
    path: Path, name: str, folders: Folders, prediction: TrainedPrediction | None = None
) -> tuple[Model, Clip, Vae]:
    """References to the parts of a checkpoint in one file. Raises ModelError.

    Args:
        prediction: what its U-Net predicts, where that is known better than from the file.
    """
    header, found = identified(path, "checkpoint")
    if found.vae is None or found.family is None:
        raise ModelError(
            path,
            f"it is {found} {' and '.join(found.notes)}",
            "Load its U-Net with UNETLoader, and the rest with VAELoader and CLIPLoader.",
        )
    texts = [_encoder(path, name, header.entries, prefix) for prefix in found.texts]
    clip = _clip_of_checkpoint(path, name, texts, folders, found.family)
    model = _model(path, name, header, found, prediction)
    if not clip.absent and clip.joined == "side by side":
        widths = sum(each.config["hidden_size"] for _, each in texts)
        wanted = unet_plan(shapes_below(header.entries, found.unet or "")).config["cross_attention_dim"]
        if wanted != widths:
            reason = f"its U-Net expects text states of width {wanted}, and its text encoders make {widths}"
            raise ModelError(path, reason, "Load a text encoder that belongs to it with CLIPLoader.")
    return model, clip, _vae(path, name, header.entries, found.vae)


def read_single_unet(path: Path, name: str) -> Model:
    """A reference to the denoising network of a file, which may hold more, or of a folder. Raises ModelError."""
    header, found = identified(path, "U-Net", "diffusion transformer", "checkpoint", stem=UNET_STEM)
    if found.family in LATENTS:
        return as_configured(_model(path, name, header, found, None), flow_beside(path), vae_beside(path))
    scheduler, vae = scheduler_beside(path), vae_beside(path)
    if scheduler is None:
        return _model(path, name, header, found, None)
    model = _model(path, name, header, found, scheduler.prediction)
    if vae is not None and vae.latents_mean is not None:
        model = replace(model, latent_scale=vae.scale, latent_shift=vae.latents_mean)
    return replace(model, levels=scheduler.levels)


def read_single_vae(path: Path, name: str) -> Vae:
    """A reference to the autoencoder of a file, which may hold more. Raises ModelError."""
    header, found = identified(path, "VAE", "checkpoint")
    if found.vae is None:
        raise ModelError(path, f"it is {found} {' and '.join(found.notes)}", "Choose another file.")
    return _vae(path, name, header.entries, found.vae)


def read_single_clip(files: Sequence[tuple[Path, str]], folders: Folders, family: Family | None = None) -> Clip:
    """A reference to text encoders, each in a file or folder of its own, in any order. Raises ModelError.

    Args:
        family: whose they are; None: one or two CLIPs, which tell themselves.
    """
    encoders: list[Encoder] = []
    for path, name in files:
        header, found = identified(path, "text encoder", "checkpoint", stem=TEXT_STEM)
        encoders += [_encoder(path, name, header.entries, prefix) for prefix in found.texts]
    return _clip(files[0][0], encoders, folders, family)


def identified(path: Path, *kinds: str, stem: str = "") -> tuple[Header, Identified]:
    """The header of a file that is one of some kinds of models. Raises ModelError, which says why it is not.

    Args:
        stem: how the files of weights are called where it is a folder in diffusers layout.
    """
    header = _joined(weight_files(path, stem)) if stem and path.is_dir() else read_whole_header(path)
    found = identify(header.entries)
    if isinstance(found, Unrecognised):
        raise ModelError(path, f"it is not recognised: {found}", f"See `latentloom models inspect {path}`.")
    if found.kind not in kinds:
        wanted = " or ".join(with_article(kind) for kind in kinds)
        advice = "Move it to the folder of its kind."
        if found.kind == "diffusion transformer":
            advice = "Move it to diffusion_models/, and load it with UNETLoader."
        raise ModelError(path, f"it is a {found}, not {wanted}", advice)
    return header, found


def _joined(files: Sequence[Path]) -> Header:
    """All tensors of a network in several files."""
    headers = [read_whole_header(file) for file in files]
    entries = {name: entry for header in headers for name, entry in header.entries.items()}
    return Header(entries, headers[0].metadata)


def _reference(path: Path, name: str, prefix: str, stem: str) -> Weights:
    return part_weights(path, stem, name) if path.is_dir() else file_reference(path, name, prefix)


def file_reference(path: Path, name: str, prefix: str) -> Weights:
    """The network of a file whose names start with a prefix. Raises ModelError."""
    try:
        identity = digest(b"file", encode([content_identity(path), prefix])).hex()
    except OSError as error:
        raise ModelError(path, f"the file cannot be read ({error.strerror or error})") from error
    return Weights(path, identity, name, prefix)


def _model(path: Path, name: str, header: Header, found: Identified, prediction: Prediction | None) -> Model:
    assert found.family is not None and found.unet is not None  # every denoising network has both
    if found.family == "SD 3" or found.family == "Flux":
        config = network_plan(shapes_below(header.entries, found.unet)).config
        return transformer_model(_reference(path, name, found.unet, UNET_STEM), found.family, config, found.variant)
    chosen = prediction or _prediction(path, header, found)
    statistics = any(each.startswith(STATISTICS) for each in header.entries)
    model = Model(
        weights=_reference(path, name, found.unet, UNET_STEM),
        prediction=chosen,
        zero_terminal_snr="ztsnr" in header.entries,
        latent_scale=LATENT_SCALES[found.family],
        variant=found.variant,
        told=TOLD[found.family],
        picture_statistics=file_reference(path, name, STATISTICS) if statistics else None,
    )
    return model if prediction else _continuous(path, header, model)


def _continuous(path: Path, header: Header, model: Model) -> Model:
    """The model as networks of the SDXL family are trained that know all noise levels between two.

    Those of Playground v2.5 are marked by the statistics of its latents, those of CosXL state their levels. Raises
    ModelError.
    """
    if PLAYGROUND_MARK in header.entries:
        levels = ContinuousLevels(*PLAYGROUND_LEVELS, sigma_data=EDM_SIGMA_DATA)
        return replace(
            model, prediction="edm", levels=levels, latent_scale=PLAYGROUND_SCALE, latent_shift=PLAYGROUND_SHIFT
        )
    if LEVEL_MARKS[1] not in header.entries:
        return model
    lowest, highest = (
        _stated(path, header, mark, usual) for mark, usual in zip(LEVEL_MARKS, CONTINUOUS_LEVELS, strict=True)
    )
    if not 0 < lowest < highest < math.inf:
        raise ModelError(path, f"it states noise levels from {lowest:g} to {highest:g}", AGAIN)
    return replace(model, prediction="v_prediction", levels=ContinuousLevels(lowest, highest))


def _stated(path: Path, header: Header, mark: str, usual: float) -> float:
    """A number that a file states. Raises ModelError."""
    if mark not in header.entries:
        return usual
    if prod(header.entries[mark].shape) != 1:
        raise ModelError(path, f"{mark} is not one number", AGAIN)
    from nodes.open_weights import OpenWeights

    return OpenWeights().tensor(path, mark).item()


def _prediction(path: Path, header: Header, found: Identified) -> TrainedPrediction:
    """What a U-Net predicts: by what its maker wrote; else Stable Diffusion 2 predicts v, all others noise.

    Shapes do not tell. Of Stable Diffusion 2 the networks for 768 pixels and most that were made from them predict v;
    those for 512 pixels and for inpainting predict noise.
    """
    stated = header.metadata.get("modelspec.prediction_type") or header.metadata.get("modelspec.predict_key")
    if stated is not None:
        return "v_prediction" if stated.startswith("v") else "epsilon"
    if "v_pred" in header.entries:
        return "v_prediction"
    if found.family != "SD 2" or found.variant not in ("plain", "unCLIP") or EPSILON_SIZE in path.name:
        return "epsilon"
    log.info("%s does not say what it predicts: taken for v; ModelSamplingDiscrete says otherwise", path.name)
    return "v_prediction"


def _encoder(path: Path, name: str, entries: Mapping[str, TensorEntry], prefix: str) -> Encoder:
    shapes = shapes_below(entries, prefix)
    try:
        if has_t5(shapes):
            return _reference(path, name, prefix, TEXT_STEM), t5_plan(shapes)
        openai = made_by_openai(path) if path.is_dir() else None
        return _reference(path, name, prefix, TEXT_STEM), text_plan(shapes, openai=openai)
    except NotThisNetwork as error:
        raise ModelError(path, f"its text encoder cannot be used: {error}") from error


def _clip_of_checkpoint(path: Path, name: str, texts: Sequence[Encoder], folders: Folders, family: Family) -> Clip:
    """The text encoders of a whole file, which may have none, or not all that its family cannot do without."""
    alone = [is_t5(plan.config) for _, plan in texts]
    if not texts or (family == "Flux" and sorted(alone) != [False, True]):
        return absent(file_reference(path, name, ""), family)
    return _clip(path, texts, folders, family)


def _clip(path: Path, encoders: Sequence[Encoder], folders: Folders, family: Family | None) -> Clip:
    """Text encoders as the family uses them; without one, as those of their widths are used. Raises ModelError."""
    configs = [plan.config for _, plan in encoders]
    if family is None and any(map(is_t5, configs)):
        kind: Family = "SDXL" if len(configs) > 1 else "SD 1"
    else:
        kind = family or family_by_texts(configs)
    clips: list[Clip] = []
    for weights, plan in encoders:
        tower = tower_of(plan.config, kind)
        clip = text_reference(weights, find_tokenizer(weights.path, folders, tower), tower, kind)
        # diffusers keeps those layers of Stable Diffusion 2's text encoder that are used.
        size = plan.config.get("num_hidden_layers"), plan.config.get("hidden_size")
        clips.append(replace(clip, left_out=int(size == (OPEN_LAYERS, OPEN_WIDTH))))
    return together(path, clips, kind)


def _vae(path: Path, name: str, entries: Mapping[str, TensorEntry], prefix: str) -> Vae:
    try:
        config = vae_plan(shapes_below(entries, prefix)).config
    except NotThisNetwork as error:
        raise ModelError(path, f"its VAE cannot be used: {error}") from error
    return Vae(
        weights=file_reference(path, name, prefix),
        factor=2 ** (len(config["block_out_channels"]) - 1),
        latent_channels=config["latent_channels"],
    )
