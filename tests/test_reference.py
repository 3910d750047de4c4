"""The table of ComfyUI's nodes: what the repository says is what the catalogue holds."""

from click.testing import CliRunner

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
    assert "| `FluxGuidance` | no | For Flux, whose networks are not read yet. |" in lines
    assert lines[-1] == "- `MyOwnNode`"


def test_every_node_for_images_masks_and_latents_is_here():
    listed = reference().nodes
    assert not set(listed["Images and masks"] + listed["Latents and VAE"]) - set(built_in())
