"""Hypernetworks: as their formula has them, by reference, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graph.folders import Folders
from nodes.checkpoints import load_checkpoint
from nodes.codecs import CODEC
from nodes.hypernetwork_layers import apply_hypernetwork
from nodes.hypernetworks import ACTIVATIONS, Hypernetwork, load_hypernetwork, read_plan
from nodes.model_errors import ModelError
from nodes.patched_network import patched
from nodes.values import Model, Weights
from tests import original_layouts as layouts
from tests import small_models, tiny_models
from tests.adapter_files import noise
from tests.commands import latentloom
from tests.pickle_files import permission, pickled
from tests.small_models import SMALL
from tests.tiny_models import save_weights

pytestmark = pytest.mark.usefixtures("packed_as_large_ones")

WIDTH = 8
X = noise(1, 5, WIDTH, seed=1)


def chain(structure: tuple[int, ...], norms: bool = False, skip: int = 1, seed: int = 3) -> dict[str, Tensor]:
    """The tensors of one chain of layers; `skip` numbers are for layers without any, such as activations."""
    found: dict[str, Tensor] = {}
    at = 0
    for into, out in zip(structure, structure[1:], strict=False):
        tensors = {"weight": noise(out * WIDTH, into * WIDTH, seed=seed + at), "bias": noise(out * WIDTH, seed=9 + at)}
        found |= {f"linear.{at}.{kind}": tensor for kind, tensor in tensors.items()}
        at += skip + 1
        if norms:
            found |= {
                f"linear.{at - 1}.weight": noise(out * WIDTH, seed=50),
                f"linear.{at - 1}.bias": noise(out * WIDTH, seed=51),
            }
    return found


def file(path: Path, keys: dict[str, Tensor], values: dict[str, Tensor], **facts: Any) -> Path:
    content = {WIDTH: (keys, values), "layer_structure": [1, 2, 1], "name": "ink", **facts}
    return pickled(path / "own.pt", content)


class Attention(torch.nn.Module):
    """The two projections alone."""

    def __init__(self) -> None:
        super().__init__()
        self.to_k, self.to_v = torch.nn.Linear(WIDTH, 4, bias=False), torch.nn.Linear(WIDTH, 4, bias=False)


def under(path: Path, strength: float = 0.5) -> tuple[Attention, Any]:
    plain, view = Attention(), Attention()
    view.load_state_dict(plain.state_dict())
    apply_hypernetwork(view, Hypernetwork(Weights(path, "own", "own"), strength))
    return plain, view


def test_keys_and_values_are_made_of_what_each_chain_makes_of_the_context(tmp_path: Path):
    keys, values = chain((1, 2, 1)), chain((1, 2, 1), seed=30)
    with permission():
        plain, view = under(file(tmp_path, keys, values, activation_func="relu", activate_output=False))
        for parts, ours, theirs in ((keys, view.to_k, plain.to_k), (values, view.to_v, plain.to_v)):
            hidden = F.linear(X, parts["linear.0.weight"], parts["linear.0.bias"]).relu()
            change = F.linear(hidden, parts["linear.2.weight"], parts["linear.2.bias"])
            torch.testing.assert_close(ours(X), theirs(X + 0.5 * change))


def test_files_older_than_the_choice_have_the_activation_at_the_end_too(tmp_path: Path):
    keys = chain((1, 1))
    with permission():
        plain, view = under(file(tmp_path, keys, keys, activation_func="tanh"))
        change = F.linear(X, keys["linear.0.weight"], keys["linear.0.bias"]).tanh()
        torch.testing.assert_close(view.to_k(X), plain.to_k(X + 0.5 * change))


def test_norms_stand_behind_activations(tmp_path: Path):
    keys = chain((1, 1), norms=True)
    with permission():
        plain, view = under(file(tmp_path, keys, keys, activation_func="swish", is_layer_norm=True))
        hidden = F.hardswish(F.linear(X, keys["linear.0.weight"], keys["linear.0.bias"]))
        change = F.layer_norm(hidden, (WIDTH,), keys["linear.1.weight"], keys["linear.1.bias"])
        torch.testing.assert_close(view.to_v(X), plain.to_v(X + 0.5 * change))


def test_the_first_files_numbered_their_two_layers(tmp_path: Path):
    keys = {
        name.replace("linear.0", "linear1").replace("linear.2", "linear2"): each
        for name, each in chain((1, 2, 1)).items()
    }
    with permission():
        plain, view = under(file(tmp_path, keys, keys))
        hidden = F.linear(X, keys["linear1.weight"], keys["linear1.bias"])
        change = F.linear(hidden, keys["linear2.weight"], keys["linear2.bias"])
        torch.testing.assert_close(view.to_k(X), plain.to_k(X + 0.5 * change))


def test_every_activation_is_one_of_torchs():
    assert all(issubclass(getattr(torch.nn, name), torch.nn.Module) for name in ACTIVATIONS.values())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A small model, and a hypernetwork for its prompts as safetensors."""
    found = Folders.below(tmp_path_factory.mktemp("data"))
    tokenizer = found.models("tokenizers") / "clip"
    tiny_models.write_tokenizer(tokenizer)
    small_models.write_file(found.models("checkpoints") / "own.safetensors", SMALL["SD 1"], tokenizer)
    for name, width in (("fits", 64), ("wide", 768)):
        shapes = {
            f"{width}.{side}.linear.0.{kind}": (width,) * rank
            for side in (0, 1)
            for kind, rank in (("weight", 2), ("bias", 1))
        }
        path = found.models("hypernetworks") / f"{name}.safetensors"
        layouts.write_weights(path, layouts.random_weights(shapes))
    return found


@pytest.fixture(scope="module")
def model(folders: Folders) -> Model:
    return load_checkpoint("own.safetensors", folders).MODEL


def test_a_model_with_one_is_another_model_and_its_network_stays(folders: Folders, model: Model):
    from nodes.models import ModelPool

    changed = load_hypernetwork(model, "fits.safetensors", 1.0, folders)
    assert changed != model and changed != load_hypernetwork(model, "fits.safetensors", 0.5, folders)
    encoded = CODEC.encode(changed)
    assert CODEC.decode(encoded.tree, encoded.blocks) == changed
    pool, x = ModelPool("fp32"), noise(1, 4, 8, 8, seed=2)
    asked = (x, torch.tensor([500.0]), noise(1, 7, 64, seed=4))
    before, after = pool.denoise_network(model)(*asked), pool.denoise_network(changed)(*asked)
    assert not torch.allclose(before, after) and after.isfinite().all()
    assert torch.equal(pool.denoise_network(model)(*asked), before)
    twice = load_hypernetwork(changed, "fits.safetensors", -1.0, folders)
    assert not torch.allclose(pool.denoise_network(twice)(*asked), after)
    network = pool.unet(model)
    assert {id(each) for each in network.parameters()} <= {
        id(each) for each in patched(network, changed.network_patches).parameters()
    }


def test_it_is_listed_and_known_by_its_names(folders: Folders):
    lines = latentloom("models", data=folders.data).out.splitlines()
    assert "  fits.safetensors" in lines and "  wide.safetensors" in lines
    path = folders.models("hypernetworks") / "wide.safetensors"
    said = latentloom("models", "inspect", path, data=folders.data).out
    assert said.startswith("wide.safetensors: SD 1 hypernetwork (AUTOMATIC1111's layout)")
    assert "for attention of the widths 768" in said


def test_of_no_strength_it_changes_nothing(folders: Folders, model: Model):
    assert load_hypernetwork(model, "fits.safetensors", 0.0, folders) == model


def test_one_for_other_widths_is_refused_with_both(folders: Folders, model: Model):
    with pytest.raises(ModelError, match="attention of the widths 768, and 'own.safetensors' has .*64"):
        load_hypernetwork(model, "wide.safetensors", 1.0, folders)


@pytest.mark.parametrize(
    ("tensors", "facts", "why"),
    [
        ({"a.weight": X}, {}, "it is no hypernetwork: it holds 'a.weight'"),
        ({"8.0.linear.0.weight": noise(8, 4, seed=1)}, {}, r"8.0.linear.0 is \[8, 4\], but it is given 8 numbers"),
        ({"8.0.linear.0.weight": noise(4, 8, seed=1)}, {}, "do not lead back to it, but to 4 numbers"),
        ({"8.0.linear.0.weight": noise(8, 8, seed=1)}, {}, "do not lead back"),
    ],
)
def test_what_is_no_hypernetwork_is_refused(tmp_path: Path, tensors: dict[str, Tensor], facts: Any, why: str):
    save_weights(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(ModelError, match=why):
        read_plan(tmp_path / "odd.safetensors")


def test_an_unknown_activation_is_refused_with_those_that_are_known(tmp_path: Path):
    keys = chain((1, 1))
    with permission(), pytest.raises(ModelError, match="its activation is 'magic'. Known are linear, celu"):
        read_plan(file(tmp_path, keys, keys, activation_func="magic"))
