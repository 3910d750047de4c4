import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import latentloom
from workflows.examples import EXAMPLES


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_every_example_is_valid(tmp_path: Path, name: str):
    said = latentloom("validate", name, data=tmp_path)
    assert said.code == 0 and "can run" in said.out


def test_nodes_lists_every_node_with_its_first_line(tmp_path: Path):
    said = latentloom("nodes", data=tmp_path)
    assert said.code == 0
    assert "KSampler " in said.out and "From a noised latent to a clean one under a prompt" in said.out


def test_a_node_is_shown_with_its_inputs_and_outputs(tmp_path: Path):
    said = latentloom("nodes", "KSampler", data=tmp_path)
    assert "INT = 20, at least 1 and at most 10000" in said.out and "→ LATENT" in said.out


def test_object_info_has_the_shape_editors_expect(tmp_path: Path):
    info = json.loads(latentloom("nodes", "KSampler", "--json", data=tmp_path).out)["KSampler"]
    assert info["input"]["required"]["seed"] == [
        "INT",
        {
            "default": 0,
            "min": 0,
            "max": 2**64 - 1,
            "control_after_generate": True,
            "tooltip": "The same seed gives the same noise, on every machine.",
        },
    ]
    assert info["input"]["required"]["sampler_name"][0][0] == "euler"
    assert info["output"] == ["LATENT"] and info["output_node"] is False


def test_an_unknown_node_gets_a_suggestion(tmp_path: Path):
    said = latentloom("nodes", "KSampeler", data=tmp_path)
    assert said.code == 2 and "did you mean 'KSampler'?" in said.err


def test_models_lists_the_embedded_model_beside_the_users_own(tmp_path: Path):
    folder = tmp_path / "models" / "checkpoints" / "mine"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    out = latentloom("models", data=tmp_path).out
    assert "  loomlet\n" in out and "  mine\n" in out


@pytest.mark.parametrize(
    "words", [["--help"], ["nodes"], ["validate", "text_to_image"], ["models"], ["run", "--help"], ["explain", "steps"]]
)
def test_what_needs_no_torch_imports_none(tmp_path: Path, words: list[str]):
    program = (
        "import sys; from server.__main__ import main; main(sys.argv[1:], standalone_mode=False); "
        "heavy = {'torch', 'diffusers', 'transformers', 'PIL', 'numpy', 'aiohttp'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    command = [sys.executable, "-c", program, "--data", str(tmp_path), *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def test_the_version_is_told_also_where_nothing_is_installed(tmp_path: Path):
    said = latentloom("--version", data=tmp_path)
    assert said.code == 0 and said.out.startswith("latentloom, ")
