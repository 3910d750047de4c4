"""The table of ComfyUI's nodes: what the repository says is what the catalogue holds."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from graph.describe import node_info
from graph.folders import Folders
from nodes.engine import built_in
from nodes.reference import COMMAND, TABLE, reference, table
from server.__main__ import main


def test_the_table_in_the_repository_is_that_of_the_catalogue():
    assert TABLE.read_text() == table(built_in()), f"make it anew: {COMMAND}"


def test_the_command_prints_the_table():
    assert CliRunner().invoke(main, ["nodes", "--reference"]).output == TABLE.read_text()


def test_no_node_is_listed_twice_and_reasons_are_for_nodes_that_are_absent():
    listed = reference()
    names = [name for stage in listed.nodes.values() for name in stage]
    assert len(names) == len(set(names)) == 210
    assert set(listed.absent) <= set(names)
    assert not set(listed.absent) & set(built_in())


def test_the_table_tells_what_is_here_from_what_is_not_and_why():
    lines = table(["KSampler", "MyOwnNode"]).splitlines()
    assert "| `KSampler` | yes | |" in lines and "| `VAEDecode` | no | Not yet. |" in lines
    assert "| `QuadrupleCLIPLoader` | no | For HiDream, whose networks are not read yet. |" in lines
    assert lines[-1] == "- `MyOwnNode`"


def test_widgets_stand_in_the_order_in_which_workflows_list_their_values():
    text, refined = (list(built_in()[f"CLIPTextEncodeSDXL{end}"].inputs) for end in ("", "Refiner"))
    sizes = ["width", "height", "crop_w", "crop_h", "target_width", "target_height"]
    assert text == ["clip", *sizes, "text_g", "text_l"]
    assert refined == ["ascore", "width", "height", "text", "clip"]


@pytest.mark.parametrize(
    ("node", "numbers"),
    [
        ("KarrasScheduler", ["sigma_max", "sigma_min", "rho"]),
        ("LaplaceScheduler", ["sigma_max", "sigma_min", "mu", "beta"]),
        ("SetFirstSigma", ["sigma"]),
        ("ExtendIntermediateSigmas", ["start_at_sigma", "end_at_sigma"]),
        ("SamplerDPMAdaptative", ["rtol", "atol", "h_init", "pcoeff", "accept_safety", "eta", "s_noise"]),
        ("ModelSamplingContinuousEDM", ["sigma_max", "sigma_min"]),
    ],
)
def test_editors_do_not_round_what_has_more_digits_than_a_step(node: str, numbers: list[str], tmp_path: Path):
    inputs = node_info(built_in()[node], Folders.below(tmp_path))["input"]["required"]
    assert [inputs[name][1]["round"] for name in numbers] == [False] * len(numbers)


def test_every_node_for_images_masks_and_latents_is_here():
    listed = reference().nodes
    assert not set(listed["Images and masks"] + listed["Latents and VAE"]) - set(built_in())
