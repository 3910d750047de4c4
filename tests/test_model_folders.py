import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import run

import pytest

from graph.folders import Folders
from nodes import model_sources
from nodes.checkpoints import PIPELINES, Checkpoint, load_pipeline
from nodes.model_errors import ModelError
from nodes.model_folders import read_checkpoint, read_vae
from nodes.model_sources import CheckpointSource, VaeSource
from nodes.values import PreviewMap
from tests import tiny_models

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_checkpoint(tmp_path_factory.mktemp("made") / "tiny")


@pytest.fixture
def checkpoint(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(made, tmp_path / "data" / "models" / "checkpoints" / "art" / "tiny")


def change_json(path: Path, **changes: object) -> None:
    import json

    tiny_models.write_json(path, {**json.loads(path.read_text()), **changes})


def test_a_checkpoint_is_read_from_its_configurations(checkpoint: Path) -> None:
    model, clip, vae = read_checkpoint(checkpoint, "tiny")
    assert (model.prediction, model.beta_start, model.beta_end) == ("epsilon", 0.00085, 0.012)
    assert (model.timesteps, model.zero_terminal_snr, model.latent_scale) == (1000, False, 0.5)
    assert (vae.factor, vae.latent_channels, clip.layer) == (8, 4, -1)
    assert model.weights.path == checkpoint / "unet"


def test_the_schedule_is_the_models_own(checkpoint: Path) -> None:
    change_json(
        checkpoint / "scheduler" / "scheduler_config.json", prediction_type="v_prediction", rescale_betas_zero_snr=True
    )
    model, _, _ = read_checkpoint(checkpoint, "tiny")
    assert (model.prediction, model.zero_terminal_snr) == ("v_prediction", True)


def test_a_map_to_colours_beside_the_autoencoder_comes_with_the_model(checkpoint: Path) -> None:
    assert read_checkpoint(checkpoint, "tiny")[0].preview is None
    path = checkpoint / "vae" / "preview.json"
    tiny_models.write_json(path, {"weight": [[1, 0, 0]] * 4, "bias": [0.5, 0, 0]})
    assert read_checkpoint(checkpoint, "tiny")[0].preview == PreviewMap(((1, 0, 0),) * 4, (0.5, 0, 0))
    change_json(path, weight=[[1, 0, 0]] * 3)
    with pytest.raises(ModelError, match="3 rows for 4 latent channels. Delete the file"):
        read_checkpoint(checkpoint, "tiny")
    change_json(path, weight="none")
    with pytest.raises(ModelError, match="weight"):
        read_checkpoint(checkpoint, "tiny")


def test_identity_follows_the_content_and_not_the_place(made: Path, checkpoint: Path) -> None:
    here, there = read_checkpoint(made, "a")[0], read_checkpoint(checkpoint, "b")[0]
    assert here.weights.identity == there.weights.identity
    data = bytearray((checkpoint / "unet" / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (checkpoint / "unet" / WEIGHTS).write_bytes(data)
    assert read_checkpoint(checkpoint, "b")[0].weights.identity != here.weights.identity


def test_names_are_folders_single_files_and_the_embedded_model(
    checkpoint: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loomlet = shutil.copytree(made, tmp_path / "loomlet")
    monkeypatch.setattr(model_sources, "LOOMLET", loomlet)
    folders = Folders.below(tmp_path / "data")
    (folders.models("checkpoints") / "old.safetensors").touch()
    (folders.models("checkpoints") / "notes.txt").touch()
    assert CheckpointSource().names(folders) == ["art/tiny", "loomlet", "old.safetensors"]
    assert CheckpointSource().locate(folders, "art/tiny") == checkpoint
    assert CheckpointSource().locate(folders, "loomlet") == loomlet
    own = shutil.copytree(made, folders.models("checkpoints") / "loomlet")
    assert CheckpointSource().names(folders) == ["art/tiny", "loomlet", "old.safetensors"]
    assert CheckpointSource().locate(folders, "loomlet") == own


def test_an_unknown_name_gets_a_suggestion_and_no_way_out(checkpoint: Path, tmp_path: Path) -> None:
    folders = Folders.below(tmp_path / "data")
    with pytest.raises(ModelError, match="Did you mean 'art/tiny'"):
        CheckpointSource().locate(folders, "art/tinny")
    for name in ("../../../secret", "/etc"):
        with pytest.raises(ValueError, match="leads out of the folder"):
            CheckpointSource().locate(folders, name)
    for name in ("", "."):
        with pytest.raises(ModelError, match="there is no checkpoint"):
            CheckpointSource().locate(folders, name)


def test_links_that_lead_back_are_followed_once(checkpoint: Path, tmp_path: Path) -> None:
    folders = Folders.below(tmp_path / "data")
    (checkpoint.parent / "loop").symlink_to(checkpoint.parent)
    assert CheckpointSource().names(folders)[0] == "art/tiny"


def test_a_vae_folder_of_its_own(made: Path, tmp_path: Path) -> None:
    folders = Folders.below(tmp_path / "data")
    shutil.copytree(made / "vae", folders.models("vae") / "sharp")
    assert VaeSource().names(folders) == ["sharp"]
    vae = read_vae(VaeSource().locate(folders, "sharp"), "sharp")
    whole = read_checkpoint(made, "sharp")[2]
    assert vae == replace(whole, weights=vae.weights) and vae.weights.identity == whole.weights.identity


def test_variants_and_shards_are_found(checkpoint: Path) -> None:
    unet = checkpoint / "unet"
    before = read_checkpoint(checkpoint, "tiny")
    (unet / WEIGHTS).rename(unet / "diffusion_pytorch_model.fp16.safetensors")
    assert read_checkpoint(checkpoint, "tiny")[1:] == before[1:]
    (unet / "diffusion_pytorch_model.fp16.safetensors").rename(unet / "one.safetensors")
    tiny_models.write_json(unet / f"{WEIGHTS}.index.json", {"weight_map": {"a": "one.safetensors"}})
    assert read_checkpoint(checkpoint, "tiny")[1:] == before[1:]
    (unet / "one.safetensors").unlink()
    with pytest.raises(ModelError, match="part of the weights is missing"):
        read_checkpoint(checkpoint, "tiny")


def cut(folder: Path) -> None:
    file = folder / "unet" / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])


def cut_in_header(folder: Path) -> None:
    file = folder / "vae" / WEIGHTS
    file.write_bytes(file.read_bytes()[:50])


def only_pickle(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def another_width(folder: Path) -> None:
    change_json(folder / "text_encoder" / "config.json", hidden_size=768)


def remove(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: void((folder / name).write_bytes(content))


def void(_: object) -> None:
    return None


def change(name: str, **changes: object) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / name, **changes)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "no index": (remove("model_index.json"), "model_index.json is missing. A checkpoint is a folder in diffusers"),
    "no part": (remove("vae"), "folder vae/ is missing"),
    "no configuration": (remove("unet/config.json"), "config.json is missing"),
    "no weights": (remove(f"unet/{WEIGHTS}"), "diffusion_pytorch_model.safetensors is missing"),
    "no vocabulary": (remove("tokenizer/vocab.json"), "vocab.json is missing"),
    "pickle": (only_pickle, "is a pickle, which can run any code"),
    "cut off": (cut, "the file is cut off"),
    "cut off in the header": (cut_in_header, "not a safetensors file, or cut off"),
    "empty": (write(f"unet/{WEIGHTS}", b""), "has 0 bytes"),
    "no safetensors": (write(f"unet/{WEIGHTS}", b"PK\3\4" * 100), "not a safetensors file"),
    "header of text": (write(f"unet/{WEIGHTS}", struct.pack("<Q", 4) + b"oops"), "not a table of tensors"),
    "SD 3": (change("model_index.json", _class_name="StableDiffusion3Pipeline"), "Models of the families Stable"),
    "another network": (change("model_index.json", unet=["diffusers", "DiTModel"]), "its unet is a DiTModel"),
    "no text encoder": (change("model_index.json", text_encoder=[None, None]), "names no text_encoder"),
    "channels": (change("unet/config.json", in_channels=5), "takes 5 channels, vae/ makes 4. Take all folders from"),
    "told too little": (
        change("unet/config.json", addition_embed_type="text_time", projection_class_embeddings_input_dim=700),
        "is told 188 numbers beside the pooled text, not 6 x 256 or 5 x 256",
    ),
    "mixed parts": (another_width, "do not belong together"),
    "flow": (change("scheduler/scheduler_config.json", prediction_type="flow"), "prediction_type: Input should be"),
    "trained betas": (change("scheduler/scheduler_config.json", trained_betas=[0.1]), "trained betas"),
    "no JSON": (write("model_index.json", b"{"), "Invalid JSON"),
    "not a table": (write("unet/config.json", b"[]"), "valid dictionary|object"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_checkpoint_is_refused_in_one_sentence(case: str, checkpoint: Path) -> None:
    spoil, message = BAD[case]
    spoil(checkpoint)
    with pytest.raises(ModelError, match=message) as caught:
        read_checkpoint(checkpoint, "tiny")
    assert str(caught.value.path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_folder_is_refused_with_the_layout_to_use(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").touch()
    with pytest.raises(ModelError, match="pickle, which can run any code.*--allow-pickle"):
        read_checkpoint(tmp_path / "a.ckpt", "a")
    with pytest.raises(ModelError, match="no such model"):
        read_checkpoint(tmp_path / "b", "b")


def test_folders_and_pool_are_imported_without_torch() -> None:
    code = (
        "import sys, nodes.model_folders, nodes.models, nodes.text_encoding; "
        "print(sorted({'torch', 'diffusers', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout.strip() == "[]"


def test_whole_folders_are_loaded_from_the_folder_for_them_too(made: Path, tmp_path: Path) -> None:
    folders = Folders.below(tmp_path)
    shutil.copytree(made, folders.models("diffusers") / "art" / "tiny")
    (folders.models("diffusers") / "alone.safetensors").touch()
    assert PIPELINES.names(folders) == ["art/tiny"]
    assert load_pipeline("art/tiny", folders) == Checkpoint(
        *read_checkpoint(PIPELINES.locate(folders, "art/tiny"), "art/tiny")
    )
    with pytest.raises(
        ModelError, match="there is no folder with a model_index.json 'art/tinny'. Did you mean 'art/ti"
    ):
        PIPELINES.locate(folders, "art/tinny")
