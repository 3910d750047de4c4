from pathlib import Path

from tests import original_layouts as layouts
from tests import t5_models
from tests.commands import latentloom


def test_inspect_says_what_a_file_is_and_what_is_in_it(tmp_path: Path):
    path = layouts.write_header(tmp_path / "v1.safetensors", layouts.families()["SD 1 checkpoint"])
    said = latentloom("models", "inspect", path, data=tmp_path)
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0] == "v1.safetensors: SD 1 checkpoint (original layout)"
    assert "  U-Net: 686 tensors, 859.5 M numbers, below model.diffusion_model." in lines
    assert "  VAE: 248 tensors, 83.7 M numbers, below first_stage_model." in lines
    assert lines[-1] == "  1130 tensors (1130 F16), 2,132.5 MB"


def test_inspect_knows_a_t5(tmp_path: Path):
    path = layouts.write_header(tmp_path / "t5xxl_fp16.safetensors", t5_models.shapes())
    said = latentloom("models", "inspect", path, data=tmp_path)
    lines = said.out.splitlines()
    assert said.code == 0 and lines[0] == "t5xxl_fp16.safetensors: text encoder (transformers' names)"
    assert "  text encoder 1: 219 tensors, 4,762.3 M numbers" in lines and "  T5-XXL" in lines


def test_inspect_says_why_a_file_is_nothing_known(tmp_path: Path):
    path = layouts.write_header(tmp_path / "odd.safetensors", {"a": (3,), "b": (4,), "c": (5,)})
    said = latentloom("models", "inspect", path, data=tmp_path)
    assert said.code == 2
    assert "odd.safetensors: not recognised" in said.out
    assert "not a VAE: there is neither encoder.down.0.block.0.conv1.weight nor" in said.out


def test_inspect_of_what_is_no_model_is_one_sentence(tmp_path: Path):
    (tmp_path / "torn.safetensors").write_bytes(b"\xff" * 40)
    for name, reason in (("torn.safetensors", "not a safetensors file, or cut off"), ("none", "there is no such file")):
        said = latentloom("models", "inspect", tmp_path / name, data=tmp_path)
        assert (said.code, said.out) == (2, "") and reason in said.err and "Traceback" not in said.err


def test_loras_and_embeddings_are_listed(tmp_path: Path):
    for name in ("loras/ink.safetensors", "embeddings/style/own.safetensors"):
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True)
        path.touch()
    lines = latentloom("models", data=tmp_path).out.splitlines()
    assert lines[lines.index(f"loras  ({tmp_path / 'models' / 'loras'})") + 1] == "  ink.safetensors"
    assert lines[lines.index(f"embeddings  ({tmp_path / 'models' / 'embeddings'})") + 1] == "  style/own.safetensors"
