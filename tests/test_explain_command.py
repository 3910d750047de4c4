from pathlib import Path

from tests.commands import Said, latentloom, saved
from workflows.examples import build

QUICK = ("--set", "KSampler.steps=2")


def outcomes(said: Said) -> dict[str, str]:
    """What was said of each node, by its class."""
    assert said.code == 0, said.err
    return {line.partition("(")[2].partition(")")[0].partition(" ")[0]: line for line in said.out.splitlines()}


def test_before_anything_has_run_everything_is_new(tmp_path: Path):
    told = outcomes(latentloom("explain", "text_to_image", data=tmp_path))
    assert told["KSampler"].startswith("run") and "nothing like it was run before" in told["KSampler"]
    assert not list(tmp_path.glob("output/*"))


def test_after_a_run_only_the_output_would_run(tmp_path: Path):
    latentloom("run", "text_to_image", *QUICK, data=tmp_path)
    told = outcomes(latentloom("explain", "text_to_image", *QUICK, data=tmp_path))
    assert told["VAEDecode"].startswith("reused")
    assert told["KSampler"].startswith("not needed")
    assert "an output runs every time" in told["SaveImage"]


def test_a_change_is_named_where_it_is_and_followed_from_there(tmp_path: Path):
    latentloom("run", "text_to_image", *QUICK, data=tmp_path)
    said = latentloom("explain", "text_to_image", *QUICK, "--set", "Prompt.text=a blue boat", "--last", data=tmp_path)
    assert 'text: "a red house in the snow at night" → "a blue boat"' in said.out
    told = outcomes(said)
    assert "positive: node 2 (CLIPTextEncode “Prompt”) differs" in told["KSampler"]
    assert told["CheckpointLoaderSimple"].startswith("reused")


def test_two_files_are_compared(tmp_path: Path):
    other = saved(tmp_path, build("text_to_image").document())
    said = latentloom("explain", "text_to_image", "--set", "KSampler.cfg=5", "--against", other, data=tmp_path)
    assert "cfg: 2.0 → 5.0" in outcomes(said)["KSampler"]


def test_against_and_last_exclude_each_other(tmp_path: Path):
    said = latentloom("explain", "text_to_image", "--against", "steps", "--last", data=tmp_path)
    assert said.code == 2 and "exclude each other" in said.err


def test_a_damaged_memory_of_the_last_run_is_no_memory(tmp_path: Path):
    (tmp_path / "last_run.json").write_text("{")
    told = outcomes(latentloom("explain", "text_to_image", data=tmp_path))
    assert "nothing like it was run before" in told["KSampler"]
