from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from server.bench.resume import Life, computed_again, live
from tests.commands import latentloom, process, saved
from tests.tiny_models import write_checkpoint

STEPS = 30


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_checkpoint(folder / "tiny")
    return folder


def data_folder(folder: Path, models: Path) -> Path:
    """A data folder with a small checkpoint."""
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "checkpoints").symlink_to(models)
    return folder


def workflow(sampler: str, width: int = 64, **changes: Any) -> dict[str, Any]:
    sampling: dict[str, Any] = {"seed": 7, "steps": STEPS, "cfg": 3.0, "sampler_name": sampler, "scheduler": "normal"}
    links = {"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0]}
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "the cat", "clip": ["1", 1]}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": width, "height": 64}},
        "4": {"class_type": "KSampler", "inputs": {**links, **sampling, **changes}},
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0]}},
    }


def finished_step(event: dict[str, Any]) -> bool:
    return event["event"] == "node_finished" and event["class_type"] == "SamplerStepBetween"


def lived(*words: str | Path, data: Path) -> Life:
    """A run in this process, to its end."""
    life = Life()
    for event in latentloom("run", *words, "--json", data=data).events:
        life.follow(event)
    return life


def test_a_run_killed_at_random_moments_repeats_at_most_one_step_each_time(tmp_path: Path, models: Path):
    document = saved(tmp_path, workflow("dpmpp_2m_sde", steps=STEPS, width=256))
    whole = lived(document, "--store", "none", data=data_folder(tmp_path / "whole", models))
    data = data_folder(tmp_path / "killed", models)
    chance = Random(5)
    words = ["--data", str(data), "run", str(document), "--json"]
    lives = [live(words, chance.uniform(0, 6), whole.seconds) for _ in range(4)]
    assert sum(life.killed for life in lives) > 2  # a kill may come too late
    lives.append(lived(document, data=data))
    assert all(computed_again(life.finished, after) <= 1 for life, after in pairwise(lives))
    assert {number for life in lives for number in life.begun} == set(whole.begun)
    assert len(lives[-1].finished) < STEPS == len(whole.finished)
    assert lives[-1].picture == whole.picture is not None
    assert not list(data.glob("store/index.damaged*"))


def test_the_same_run_in_another_process_reuses_everything_but_the_sink(tmp_path: Path, models: Path):
    data = data_folder(tmp_path / "data", models)
    document = saved(tmp_path, workflow("euler", steps=3))
    first = latentloom("run", document, data=data)
    with process("run", document, data=data) as running:
        out, err = running.communicate()
    assert "1 run, 1 reused" in err
    assert Path(out.strip()).read_bytes() == first.files[0].read_bytes()


def test_another_end_shares_the_steps_before_it(tmp_path: Path, models: Path):
    data = data_folder(tmp_path / "data", models)
    latentloom("run", saved(tmp_path, workflow("euler", steps=6)), data=data)
    longer = workflow("euler", steps=6) | {
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}}
    }
    longer["4"] = {
        "class_type": "KSamplerAdvanced",
        "inputs": {
            "model": ["1", 0],
            "add_noise": "enable",
            "noise_seed": 7,
            "steps": 6,
            "cfg": 3.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "positive": ["2", 0],
            "negative": ["2", 0],
            "latent_image": ["3", 0],
            "end_at_step": 4,
            "return_with_leftover_noise": "enable",
        },
    }
    said = latentloom("run", saved(tmp_path, longer), "--json", data=data)
    assert said.code == 0 and not any(finished_step(event) for event in said.events)


def test_results_of_another_precision_are_not_reused(tmp_path: Path, models: Path):
    data = data_folder(tmp_path / "data", models)
    document = saved(tmp_path, workflow("euler", steps=2))
    pictures = [
        latentloom("run", document, "--precision", precision, data=data).files[0]
        for precision in ("fp32", "bf16", "fp32")
    ]
    first, other, again = (picture.read_bytes() for picture in pictures)
    assert first == again != other
