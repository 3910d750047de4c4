"""Files of ControlNets: what is read, what is refused and why, and the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as Pictures
from torch import Tensor

from graph.errors import RunFailed
from nodes.control_files import read_control_net
from nodes.controlnets import apply_control_net_for_a_while, load_control_net, load_difference, set_union_type
from nodes.engine import Engine
from nodes.model_errors import ModelError
from tests import control_models, original_layouts, tiny_models
from tests import control_scenes as scenes
from tests.adapter_files import change as matrices
from tests.adapter_files import lora
from tests.commands import latentloom
from tests.control_scenes import checkpoint, control, draw, near, sampled, steered
from tests.pickle_files import permission, pickled


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.data_folder(tmp_path_factory)


@pytest.fixture(scope="module")
def engine(data: Path) -> Engine:
    return scenes.engine_for(data)


def unet(family: str, data: Path) -> dict[str, Tensor]:
    """The weights of a small model's U-Net, in the original layout."""
    whole = tiny_models.load_weights(checkpoint(data, family).with_suffix(".safetensors"))
    start = "model.diffusion_model."
    return {name.removeprefix(start): weight for name, weight in whole.items() if name.startswith(start)}


def difference(data: Path, family: str) -> tuple[str, str]:
    """Names of a ControlNet and of its difference to the family's model."""
    weights, base = control_models.control_weights(family), unet(family, data)
    own = {name: weight - base[name] if name in base else weight for name, weight in weights.items()}
    nets = data / "models" / "controlnet"
    control_models.write(nets / "difference.safetensors", own, "control_model.", difference=torch.tensor(1.0))
    return control(data, family)[0], "difference.safetensors"


def test_a_difference_is_added_to_the_models_weights(data: Path, engine: Engine):
    whole, name = difference(data, "SD 1")

    def added(model: Any, positive: Any, negative: Any) -> Any:
        net = load_difference(model=model, control_net_name=name)
        return apply_control_net_for_a_while(positive, negative, net, draw())

    near(sampled(engine, "SD 1", added), sampled(engine, "SD 1", steered(whole)))


def test_the_loader_of_differences_takes_whole_ones_as_they_are(data: Path, engine: Engine):
    checkpoint(data, "SD 1")
    name, _ = control(data, "SD 1")

    def by_other_loader(model: Any, positive: Any, negative: Any) -> Any:
        net = load_difference(model=model, control_net_name=name)
        return apply_control_net_for_a_while(positive, negative, net, draw())

    assert torch.equal(sampled(engine, "SD 1", by_other_loader), sampled(engine, "SD 1", steered(name)))


def control_lora(data: Path, family: str) -> tuple[str, str]:
    """Names of a ControlLoRA for the family's model, and of the ControlNet that comes of both."""
    base, whole = unet(family, data), control_models.control_weights(family)
    own: dict[str, Tensor] = {"lora_controlnet": torch.zeros(0)}
    for at, (name, weight) in enumerate(whole.items()):
        if name in base and name.endswith(".weight") and base[name].ndim > 1:
            change = lora(base[name], seed=at)
            whole[name] = base[name] + 0.1 * matrices(change)
            own |= {f"{name.removesuffix('weight')}{part}": change[f"lora_{part}.weight"] for part in ("up", "down")}
            own[f"{name.removesuffix('weight')}down"] *= 0.1
        elif name in base and at % 2:
            whole[name] = base[name]
        else:
            own[name] = weight
    nets = data / "models" / "controlnet"
    control_models.write(nets / f"{family} LoRA.safetensors", own)
    control_models.write(nets / f"{family} whole.safetensors", whole)
    return f"{family} LoRA.safetensors", f"{family} whole.safetensors"


@pytest.mark.parametrize("family", ["SD 1", "SDXL"])
def test_a_control_lora_is_the_models_weights_and_its_changes(family: str, data: Path, engine: Engine):
    name, whole = control_lora(data, family)
    ours = sampled(engine, family, steered(name))
    near(ours, sampled(engine, family, steered(whole)))
    assert (ours - sampled(engine, family, scenes.plainly)).abs().max() > 1e-2


def test_a_control_lora_for_another_model_is_refused_with_both_names(data: Path, engine: Engine):
    name, _ = control_lora(data, "SDXL")
    checkpoint(data, "SD 2")
    with pytest.raises(RunFailed, match="SDXL LoRA.safetensors: this ControlLoRA does not fit the model 'SD 2"):
        sampled(engine, "SD 2", steered(name))


def test_a_controlnet_for_another_family_is_refused_with_both_names(data: Path, engine: Engine):
    checkpoint(data, "SD 1")
    for family in ("SD 2", "SDXL"):
        name, _ = control(data, family)
        with pytest.raises(RunFailed) as caught:
            sampled(engine, "SD 1", steered(name))
        assert f"the ControlNet '{name}' ({family}) does not fit the model 'SD 1.safetensors' (SD 1)" in str(
            caught.value
        )


def test_a_difference_to_another_family_is_refused_with_both_names(data: Path, engine: Engine):
    _, name = difference(data, "SD 1")
    checkpoint(data, "SDXL")

    def added(model: Any, positive: Any, negative: Any) -> Any:
        net = load_difference(model=model, control_net_name=name)
        return apply_control_net_for_a_while(positive, negative, net, draw())

    with pytest.raises(RunFailed, match="difference to an SD 1 model, but 'SDXL.safetensors' is SDXL"):
        sampled(engine, "SDXL", added)


def test_a_union_is_not_asked_for_what_it_does_not_know(data: Path, engine: Engine):
    checkpoint(data, "SDXL")
    control_models.write_module(data / "models" / "controlnet" / "six.safetensors", control_models.union(6))

    def steer(model: Any, positive: Any, negative: Any) -> Any:
        net = set_union_type(load_control_net(control_net_name="six.safetensors"), "repaint")
        return apply_control_net_for_a_while(positive, negative, net, draw())

    with pytest.raises(RunFailed, match="knows 6 kinds of pictures, and not the one"):
        sampled(engine, "SDXL", steer)


def test_a_pickle_is_read_where_that_is_allowed(data: Path, engine: Engine):
    checkpoint(data, "SD 1")
    name, _ = control(data, "SD 1")
    own = {f"control_model.{each}": weight for each, weight in weights_of("SD 1").items()}
    pickled(data / "models" / "controlnet" / "net.pth", {"state_dict": own})
    with permission():
        assert torch.equal(sampled(engine, "SD 1", steered("net.pth")), sampled(engine, "SD 1", steered(name)))
    with pytest.raises(ModelError, match="this is a pickle"):
        read_control_net(data / "models" / "controlnet" / "net.pth", "net.pth")


def weights_of(family: str) -> dict[str, Tensor]:
    return control_models.control_weights(family)


def without(name: str) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        own = {each: weight for each, weight in weights_of("SD 1").items() if not each.startswith(name)}
        return control_models.write(path / "net.safetensors", own)

    return write


def truncated(path: Path) -> Path:
    whole = control_models.write(path / "net.safetensors", weights_of("SD 1"))
    whole.write_bytes(whole.read_bytes()[:-100])
    return whole


def of_a_vae(path: Path) -> Path:
    weights = original_layouts.random_weights(original_layouts.vae(32, (1, 1), 1))
    return control_models.write(path / "net.safetensors", weights)


def of_a_difference(path: Path) -> Path:
    return control_models.write(path / "net.safetensors", weights_of("SD 1"), difference=torch.tensor(1.0))


def of_noise(path: Path) -> Path:
    (path / "net.safetensors").write_bytes(bytes(range(256)) * 4)
    return path / "net.safetensors"


def of_another_kind(path: Path) -> Path:
    tiny_models.write_unet(path / "net")
    return path / "net"


def without_weights(path: Path) -> Path:
    tiny_models.write_json(path / "net" / "config.json", {"_class_name": "ControlNetModel"})
    return path / "net"


WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no first layer": (without("input_blocks.0."), "not a ControlNet: there is no conv_in.weight"),
    "truncated": (truncated, "the file is cut off: .* ends at byte"),
    "a VAE": (of_a_vae, "it is a VAE .original layout., not a ControlNet or a T2I-Adapter"),
    "a difference": (of_a_difference, "it holds a difference to a model's weights.*DiffControlNetLoader"),
    "noise": (of_noise, "net.safetensors"),
    "a folder of a U-Net": (of_another_kind, "it is a UNet2DConditionModel, not one of ControlNetModel"),
    "a folder without weights": (without_weights, "diffusion_pytorch_model.safetensors is missing"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_used_is_told_why(case: str, tmp_path: Path):
    make, reason = WRONG[case]
    with pytest.raises(ModelError, match=reason):
        read_control_net(make(tmp_path), "net")


def test_weights_that_are_missing_are_named_when_they_are_read(data: Path, engine: Engine):
    checkpoint(data, "SD 1")
    own = {name: weight for name, weight in weights_of("SD 1").items() if not name.startswith("zero_convs.1.")}
    control_models.write(data / "models" / "controlnet" / "hole.safetensors", own)
    with pytest.raises(RunFailed, match="2 are missing: controlnet_down_blocks.1.weight"):
        sampled(engine, "SD 1", steered("hole.safetensors"))


def test_inspect_tells_files_and_folders(data: Path):
    nets = data / "models" / "controlnet"
    control(data, "SDXL")
    told = latentloom("models", "inspect", nets / "SDXL 1.safetensors", data=data).out
    assert "SDXL ControlNet (original layout)" in told and "below control_model." in told
    control_models.write_module(nets / "folder", control_models.control_net("SD 2", weights_of("SD 2")))
    assert "ControlNet (diffusers folder)" in latentloom("models", "inspect", nets / "folder", data=data).out
    listed = latentloom("models", data=data).out
    assert "controlnet  (" in listed and "  SDXL 1.safetensors" in listed and "  folder" in listed


def test_a_workflow_on_the_command_line_is_steered(data: Path, tmp_path: Path):
    checkpoint(data, "SD 1")
    name, _ = control(data, "SD 1")
    (data / "input").mkdir(exist_ok=True)
    Pictures.new("RGB", (48, 32), "blue").save(data / "input" / "lines.png")

    def use(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    document = {
        "model": use("CheckpointLoaderSimple", ckpt_name="SD 1.safetensors"),
        "text": use("CLIPTextEncode", text="the cat", clip=["model", 1]),
        "away": use("CLIPTextEncode", text="dog", clip=["model", 1]),
        "net": use("ControlNetLoader", control_net_name=name),
        "lines": use("LoadImage", image="lines.png"),
        "steered": use(
            "ControlNetApplyAdvanced", positive=["text", 0], negative=["away", 0], control_net=["net", 0],
            image=["lines", 0], strength=0.9, start_percent=0.0, end_percent=0.7, vae=["model", 2],
        ),
        "blank": use("EmptyLatentImage", width=64, height=64, batch_size=1),
        "sampled": use(
            "KSampler", model=["model", 0], seed=1, steps=3, cfg=5.0, sampler_name="euler", scheduler="normal",
            positive=["steered", 0], negative=["steered", 1], latent_image=["blank", 0], denoise=1.0,
        ),
        "decoded": use("VAEDecode", samples=["sampled", 0], vae=["model", 2]),
        "saved": use("SaveImage", images=["decoded", 0], filename_prefix="steered"),
    }  # fmt: skip
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(document))
    said = latentloom("run", path, data=data)
    assert said.code == 0 and len(said.files) == 1
    with Pictures.open(said.files[0]) as picture:
        assert picture.size == (64, 64)
