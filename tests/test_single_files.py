"""Models in one file: whole checkpoints and parts alone, where their vocabulary is, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from graph.folders import Folders
from nodes.checkpoints import UNETS, load_checkpoint, load_checkpoint_as, load_clip, load_two_clips, load_unet, load_vae
from nodes.model_errors import ModelError
from nodes.models import ModelPool
from nodes.single_files import read_single_checkpoint
from nodes.text_encoding import encode_prompt
from nodes.values import Clip
from tests import original_layouts as layouts
from tests import small_models, tiny_models
from tests.small_models import SMALL


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Small models of some families whole, and SDXL's parts alone."""
    found = Folders.below(tmp_path_factory.mktemp("data"))
    tokenizer = found.models("tokenizers") / "clip"
    tiny_models.write_tokenizer(tokenizer)
    for family in ("SD 1", "SD 2", "SDXL"):
        weights = small_models.write_file(
            found.models("checkpoints") / f"{family}.safetensors", SMALL[family], tokenizer
        )
    for kind, name, prefix in (
        ("diffusion_models", "unet", "model.diffusion_model."),
        ("vae", "vae", "first_stage_model."),
        ("text_encoders", "l", layouts.EMBEDDERS[0]),
        ("clip", "g", layouts.EMBEDDERS[1]),
    ):
        part = {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
        layouts.write_weights(found.models(kind) / f"{name}.safetensors", part)
    return found


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub cannot be reached, and this is its cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_parts_alone_are_those_of_the_whole_file(folders: Folders):
    whole = load_checkpoint("SDXL.safetensors", folders=folders)
    pool = ModelPool(precision="fp32", device="cpu")
    model, vae = load_unet("unet.safetensors", folders=folders), load_vae("vae.safetensors", folders=folders)
    assert (model.told, model.latent_scale, vae.factor) == ("sizes", 0.13025, 8)
    for ours, theirs in ((pool.unet(model), pool.unet(whole.MODEL)), (pool.vae(vae), pool.vae(whole.VAE))):
        weights = theirs.state_dict()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("names", [("l.safetensors", "g.safetensors"), ("g.safetensors", "l.safetensors")])
def test_two_text_encoders_work_together_in_either_order(names: tuple[str, str], folders: Folders):
    pool = ModelPool(precision="fp32", device="cpu")
    clips = load_checkpoint("SDXL.safetensors", folders=folders).CLIP, load_two_clips(*names, folders=folders)
    whole, parts = (encode_prompt(pool, clip, "the (blue:1.3) cat").prompts[0] for clip in clips)
    assert torch.equal(whole.tokens, parts.tokens) and whole.tokens.shape == (1, 77, 128)
    assert whole.pooled is not None and parts.pooled is not None and torch.equal(whole.pooled, parts.pooled)


def test_the_shorter_of_two_texts_is_filled_up_with_empty_chunks(folders: Folders):
    pool = ModelPool(precision="fp32", device="cpu")
    clip = load_checkpoint("SDXL.safetensors", folders=folders).CLIP
    assert encode_prompt(pool, clip, {"CLIP-L": "cat", "CLIP-G": "dog " * 100}).prompts[0].tokens.shape == (1, 154, 128)


def test_one_text_encoder_is_used_as_its_family_does(folders: Folders):
    clip = load_clip("l.safetensors", folders=folders)
    assert (clip.layer, clip.normed, clip.further) == (-1, True, ())
    with pytest.raises(ValueError, match="type hidream: text encoders of this family are not supported; expected one"):
        load_two_clips("l.safetensors", "g.safetensors", type="hidream", folders=folders)
    with pytest.raises(ModelError, match="Flux needs a CLIP-L and a T5, but there is CLIP-L and CLIP-G"):
        load_two_clips("l.safetensors", "g.safetensors", type="flux", folders=folders)
    with pytest.raises(ModelError, match="two are of the same kind .CLIP-L and CLIP-L."):
        load_two_clips("l.safetensors", "l.safetensors", folders=folders)


def test_a_network_where_another_is_expected_is_named(folders: Folders):
    names = UNETS.names(folders)  # beside folders that other tests write there
    assert "unet.safetensors" in names and "SDXL.safetensors" not in names
    path = folders.models("checkpoints") / "SDXL.safetensors"
    with pytest.raises(ModelError, match="is a VAE .original layout., not a checkpoint"):
        read_single_checkpoint(folders.models("vae") / "vae.safetensors", "vae", folders)
    with pytest.raises(ModelError, match="Did you mean 'SDXL.safetensors'"):
        load_checkpoint("SDXI.safetensors", folders=folders)
    assert path.is_file()


@pytest.mark.parametrize(
    ("config", "prediction", "layer"),
    [("v2-inference.yaml", "epsilon", -2), ("v2-inference-v.yaml", "v_prediction", -2)],
)
def test_a_configuration_says_what_is_predicted(config: str, prediction: str, layer: int, folders: Folders):
    model, clip, _ = load_checkpoint_as(config, "SD 2.safetensors", folders=folders)  # pyright: ignore[reportArgumentType]  # one name of a fixed list
    assert (model.prediction, clip.layer) == (prediction, layer)
    skipping = load_checkpoint_as("v1-inference_clip_skip_2.yaml", "SD 1.safetensors", folders=folders)
    assert skipping.CLIP.layer == -2


def of_header(path: Path, more: dict[str, tuple[int, ...]], folders: Folders, metadata: dict[str, str] | None = None):
    shapes = small_models.shapes_of(SMALL["SD 2"], 600) | more
    layouts.write_header(path, shapes)
    if metadata:
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.dumps({**json.loads(data[8 : 8 + length]), "__metadata__": metadata}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    return read_single_checkpoint(path, path.name, folders)[0]


def test_what_a_stable_diffusion_2_file_predicts_is_stated_or_told_by_its_name(tmp_path: Path, folders: Folders):
    assert of_header(tmp_path / "v2-1_768.safetensors", {}, folders).prediction == "v_prediction"
    assert of_header(tmp_path / "v2-1_512.safetensors", {}, folders).prediction == "epsilon"
    stated = {"modelspec.prediction_type": "epsilon"}
    assert of_header(tmp_path / "768.safetensors", {}, folders, stated).prediction == "epsilon"
    marked = of_header(tmp_path / "512.safetensors", {"v_pred": (0,), "ztsnr": (0,)}, folders)
    assert (marked.prediction, marked.zero_terminal_snr) == ("v_prediction", True)


def test_vocabularies_are_found_beside_the_file_among_the_models_and_in_the_hubs_cache(tmp_path: Path, offline: Path):
    folders = Folders.below(tmp_path / "data")
    checkpoint = folders.models("checkpoints") / "a.safetensors"
    cached = offline / "models--openai--clip-vit-large-patch14"
    layouts.write_header(_made(checkpoint), small_models.shapes_of(SMALL["SD 1"], 600))
    _made(cached / "refs" / "main").write_text("abc")

    def found() -> Path:
        clip: Clip = read_single_checkpoint(checkpoint, "a", folders)[1]
        return clip.tokenizer.path

    for place in (cached / "snapshots" / "abc", folders.models("tokenizers") / "clip", checkpoint.parent / "tokenizer"):
        tiny_models.write_tokenizer(place)
        assert found() == place


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_without_a_vocabulary_the_files_and_the_command_that_fetches_them_are_named(tmp_path: Path, offline: Path):
    folders = Folders.below(tmp_path / "data")
    path = _made(folders.models("checkpoints") / "a.safetensors")
    layouts.write_header(path, small_models.shapes_of(SMALL["SD 1"], 600))
    with pytest.raises(ModelError, match="vocab.json and merges.txt are missing") as caught:
        read_single_checkpoint(path, "a", folders)
    home = folders.models("tokenizers") / "clip"
    command = f"hf download openai/clip-vit-large-patch14 vocab.json merges.txt --local-dir {home}"
    assert command in str(caught.value)


def without(prefix: str) -> Callable[[layouts.Shapes], layouts.Shapes]:
    return lambda shapes: {name: shape for name, shape in shapes.items() if not name.startswith(prefix)}


BAD: dict[str, tuple[Callable[[layouts.Shapes], layouts.Shapes], str]] = {
    "no VAE": (without("first_stage_model."), "without a VAE. Load its U-Net with UNETLoader"),
    "no model": (lambda _: {"a": (1,), "b": (1,), "c": (1,)}, "not recognised: .*not a LoRA.*models inspect"),
    "mixed": (
        lambda shapes: (
            without("model.diff")(shapes)
            | layouts.below("model.diffusion_model.", layouts.unet(replace(SMALL["SD 1"].unet, context=96)))
        ),
        "expects text states of width 96, and its text encoders make 64",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_not_whole_is_refused_with_what_to_do(case: str, tmp_path: Path, folders: Folders):
    change, message = BAD[case]
    path = layouts.write_header(tmp_path / "bad.safetensors", change(small_models.shapes_of(SMALL["SD 1"], 600)))
    with pytest.raises(ModelError, match=message):
        read_single_checkpoint(path, "bad", folders)


def test_a_file_without_a_text_encoder_says_so_when_one_is_asked_for(tmp_path: Path, folders: Folders):
    shapes = without("cond_stage_model.")(small_models.shapes_of(SMALL["SD 1"], 600))
    path = layouts.write_header(tmp_path / "none.safetensors", shapes)
    model, clip, _ = read_single_checkpoint(path, "none", folders)
    assert model.weights.path == path
    with pytest.raises(ModelError, match="holds no text encoder. Load them with CLIPLoader"):
        encode_prompt(ModelPool(precision="fp32", device="cpu"), clip, "cat")


def test_a_weight_too_few_is_named_when_the_network_is_wanted(tmp_path: Path, folders: Folders):
    shapes = small_models.shapes_of(SMALL["SD 1"], 600)
    del shapes["model.diffusion_model.out.2.bias"]
    path = layouts.write_header(tmp_path / "less.safetensors", shapes)
    model, _, _ = read_single_checkpoint(path, "less", folders)
    with pytest.raises(ModelError, match="1 are missing: conv_out.bias. See `latentloom models inspect"):
        ModelPool(precision="fp32", device="cpu").unet(model)


def test_a_real_vocabulary_gives_the_ids_of_transformers(folders: Folders):
    real = Path(__file__).parents[2] / "shared" / "data" / "clip_tokenizer"
    if not real.is_dir():
        pytest.skip("there is no real vocabulary here")
    from nodes.model_folders import tokenizer_files

    tokenizer = ModelPool(device="cpu").tokenizer(Clip(load_clip("l.safetensors", folders=folders).weights,
                                                       tokenizer_files(real, "clip")))  # fmt: skip
    assert (tokenizer.start, tokenizer.end, tokenizer.ids("a photo of a cat")) == (
        49406,
        49407,
        [320, 1125, 539, 320, 2368],
    )


@pytest.fixture(scope="module")
def parts(folders: Folders) -> Folders:
    """The same models as folders, among the parts."""
    for family in ("SD 2", "SDXL"):
        path = folders.models("checkpoints") / f"{family}.safetensors"
        weights = tiny_models.load_weights(path)
        small_models.write_folder(folders.models("diffusion_models") / family, SMALL[family], weights)
        for each in (folders.models("diffusion_models") / family).glob("text_encoder*"):
            each.rename(folders.models("text_encoders").joinpath(f"{family} {each.name}"))
    return folders


@pytest.mark.parametrize("family", ["SD 2", "SDXL"])
def test_a_unet_in_a_folder_is_that_of_the_whole_file(family: str, parts: Folders):
    name = f"{family}/unet"
    assert name in UNETS.names(parts)
    ours, theirs = load_unet(name, folders=parts), load_checkpoint(f"{family}.safetensors", folders=parts).MODEL
    assert replace(ours, weights=theirs.weights) == theirs
    pool = ModelPool(precision="fp32", device="cpu")
    weights = pool.unet(theirs).state_dict()
    assert all(torch.equal(tensor, weights[key]) for key, tensor in pool.unet(ours).state_dict().items())


def test_text_encoders_in_folders_are_those_of_the_whole_file(parts: Folders):
    pool = ModelPool(precision="fp32", device="cpu")
    for family, load in (
        ("SD 2", lambda: load_clip("SD 2 text_encoder", folders=parts)),
        ("SDXL", lambda: load_two_clips("SDXL text_encoder_2", "SDXL text_encoder", folders=parts)),
    ):
        whole = load_checkpoint(f"{family}.safetensors", folders=parts).CLIP
        ours, theirs = (encode_prompt(pool, clip, "the (blue:1.3) cat").prompts[0] for clip in (load(), whole))
        assert ours.tokens.shape == theirs.tokens.shape
        if family == "SDXL":
            assert torch.equal(ours.tokens, theirs.tokens)


def test_an_epsilon_model_is_told_by_the_scheduler_beside_its_folder(parts: Folders):
    folder = parts.models("diffusion_models") / "SD 2"
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("v_prediction", "epsilon"))
    assert load_unet("SD 2/unet", folders=parts).prediction == "epsilon"
    config.unlink()
    assert load_unet("SD 2/unet", folders=parts).prediction == "v_prediction"
