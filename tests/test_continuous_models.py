"""Networks that know all noise levels between two: Playground v2.5 and CosXL, in files and in folders."""

import json
from pathlib import Path
from shutil import copytree
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from graph.folders import Folders
from nodes.checkpoints import load_checkpoint, load_unet
from nodes.documents import Documents
from nodes.latent_scale import PLAYGROUND_SCALE, PLAYGROUND_SHIFT, for_network, for_vae
from nodes.model_errors import ModelError
from nodes.model_overrides import continuous_edm
from nodes.model_saving import save_checkpoint, save_model
from nodes.trajectory import diffuse
from nodes.values import ContinuousLevels, Latent, Model, Noise, Weights
from tests import original_layouts, small_models, tiny_models
from tests.small_models import SMALL

MEAN = [-1.6574, 1.886, -1.383, 2.5155]
SPREAD = [8.4927, 5.9022, 6.5498, 5.2299]
STATISTICS = {"edm_mean": torch.tensor(MEAN).view(1, 4, 1, 1), "edm_std": torch.tensor(SPREAD).view(1, 4, 1, 1)}
LEVELS = {"edm_vpred.sigma_max": torch.tensor(100.0), "edm_vpred.sigma_min": torch.tensor(0.01)}


class World(NamedTuple):
    """A small SDXL, as a folder and as weights for a file."""

    folders: Folders
    weights: dict[str, Tensor]

    def file(self, more: dict[str, Tensor]) -> Model:
        path = self.folders.models("checkpoints") / "own.safetensors"
        original_layouts.write_weights(path, {**self.weights, **more})
        return load_checkpoint(path.name, self.folders)[0]

    def folder(self, vae: dict[str, Any], scheduler: dict[str, Any]) -> Model:
        place = self.folders.models("checkpoints") / "own"
        small_models.write_folder(place, SMALL["SDXL"], self.weights)
        for path, changes in (
            (place / "vae" / "config.json", vae),
            (place / "scheduler" / "scheduler_config.json", scheduler),
        ):
            path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return load_checkpoint("own", self.folders)[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("data")
    tokenizer = folder / "models" / "tokenizers" / "clip"
    tiny_models.write_tokenizer(tokenizer)
    weights = small_models.write_file(folder / "any.safetensors", SMALL["SDXL"], tokenizer)
    return World(Folders.below(folder, folder / "models"), weights)


def test_playground_is_known_by_its_statistics(world: World):
    model = world.file(STATISTICS)
    assert (model.prediction, model.levels) == ("edm", ContinuousLevels(0.002, 80.0, sigma_data=0.5))
    assert (model.latent_shift, model.latent_scale) == (PLAYGROUND_SHIFT, PLAYGROUND_SCALE)


def test_playground_as_a_folder_is_the_same(world: World):
    edm = {"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}
    vae = {"latents_mean": MEAN, "latents_std": SPREAD, "scaling_factor": 0.5}
    model = world.folder(vae, {**edm, "prediction_type": "epsilon"})
    assert (model.prediction, model.levels) == ("edm", ContinuousLevels(0.002, 80.0, sigma_data=0.5))
    assert (model.latent_shift, model.latent_scale) == (PLAYGROUND_SHIFT, PLAYGROUND_SCALE)


def test_statistics_for_another_number_of_channels_are_refused(world: World):
    with pytest.raises(ModelError, match="3 statistics for 4 latent channels"):
        world.folder({"latents_mean": MEAN[:3]}, {})


def test_the_network_of_a_folder_is_as_what_lies_beside_it_says(world: World):
    edm = {"_class_name": "EDMEulerScheduler", "sigma_min": 0.002, "sigma_max": 80.0, "prediction_type": "epsilon"}
    whole = world.folder({"latents_mean": MEAN, "latents_std": SPREAD, "scaling_factor": 0.5}, edm)
    copytree(world.folders.models("checkpoints") / "own", world.folders.models("diffusion_models") / "own")
    alone = load_unet("own/unet", folders=world.folders)
    for name in ("prediction", "levels", "latent_scale", "latent_shift"):
        assert getattr(alone, name) == getattr(whole, name), name


HOSTILE = [
    ({"edm_vpred.sigma_max": torch.ones(3)}, "edm_vpred.sigma_max is not one number"),
    ({"edm_vpred.sigma_max": torch.empty(0)}, "edm_vpred.sigma_max is not one number"),
    ({"edm_vpred.sigma_max": torch.tensor(0.001)}, "it states noise levels from 0.002 to 0.001"),
    ({"edm_vpred.sigma_max": torch.tensor(torch.inf)}, "it states noise levels from 0.002 to inf"),
    ({"edm_vpred.sigma_max": torch.tensor(torch.nan)}, "it states noise levels from 0.002 to nan"),
    ({**LEVELS, "edm_vpred.sigma_min": torch.tensor(-1.0)}, "it states noise levels from -1 to 100"),
]


@pytest.mark.parametrize(("more", "said"), HOSTILE)
def test_levels_that_are_none_are_refused(world: World, more: dict[str, Tensor], said: str):
    with pytest.raises(ModelError, match=said):
        world.file(more)


def test_levels_of_a_folder_that_are_none_are_refused(world: World):
    with pytest.raises(ModelError, match="noise levels from 5 to 3"):
        world.folder({}, {"_class_name": "EDMEulerScheduler", "sigma_min": 5.0, "sigma_max": 3.0})


def test_cosxl_states_its_levels(world: World):
    model = world.file(LEVELS)
    assert model.prediction == "v_prediction"
    assert isinstance(model.levels, ContinuousLevels)
    assert (model.levels.lowest, model.levels.highest) == (pytest.approx(0.01), 100.0)
    assert model.latent_scale == 0.13025


def test_any_other_sdxl_is_none_of_these(world: World):
    model = world.file({})
    assert (model.prediction, model.levels, model.latent_scale) == ("epsilon", None, 0.13025)


@pytest.mark.parametrize("more", [STATISTICS, LEVELS, {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}, {}])
def test_what_is_saved_is_known_again(world: World, more: dict[str, Tensor]):
    model = world.file(more)
    _, clip, vae = load_checkpoint("own.safetensors", world.folders)
    (path,) = save_model(model, "diffusion_models/own", world.folders, Documents({})).paths
    (whole,) = save_checkpoint(model, clip, vae, "checkpoints/again", world.folders, Documents({})).paths
    for found in (load_unet(path.name, folders=world.folders), load_checkpoint(whole.name, world.folders)[0]):
        for name in ("prediction", "levels", "zero_terminal_snr", "latent_scale", "latent_shift"):
            assert getattr(found, name) == getattr(model, name), name


def test_each_channel_has_its_own_mean_and_spread():
    model = continuous_edm(Model(Weights(Path(), "", "")), "edm_playground_v2.5")
    latent = torch.randn(2, 4, 5, 6)
    mean, spread = (torch.tensor(numbers).view(1, 4, 1, 1) for numbers in (MEAN, SPREAD))
    torch.testing.assert_close(for_network(model, latent), (latent - mean) / spread * 0.5)
    torch.testing.assert_close(for_vae(model, for_network(model, latent)), latent)


def test_a_noisy_latent_of_playground_is_at_the_scale_of_its_vae(world: World):
    model = world.file(STATISTICS)
    latent = torch.randn(1, 4, 5, 6)
    noisy = diffuse(model, Noise(None), 3.0, Latent(latent), False)
    torch.testing.assert_close(noisy.samples, latent)
