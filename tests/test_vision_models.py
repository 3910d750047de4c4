"""Loading networks of transformers that look at pictures: which there are, what they do, and the refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from torch.nn import Module

from nodes.models import ModelPool
from nodes.vision.boxes import detect
from nodes.vision.classification import classify
from nodes.vision.loading import load_network, network
from nodes.vision.models import VISION_MODELS, VisionModel, load_vision_model, read_vision_model
from nodes.vision.similarity import similarity
from tests import tiny_vision
from tests.pickle_files import permission, pickled
from tests.running import Bench, any_image
from tests.seeing import given, has, refused, vision_bench
from tests.tiny_models import load_weights, save_weights


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return vision_bench(tmp_path)


@pytest.mark.parametrize(
    ("write", "task"),
    [
        (tiny_vision.write_clip, "text-image similarity"),
        (tiny_vision.write_classifier, "image classification"),
        (tiny_vision.write_detector, "object detection"),
        (tiny_vision.write_open_detector, "zero-shot object detection"),
        (tiny_vision.write_semantic, "segmentation"),
        (tiny_vision.write_instances, "segmentation"),
        (tiny_vision.write_captioner, "captioning"),
    ],
)
def test_a_folder_is_loaded_for_its_task_with_every_weight(bench: Bench, write: Callable[[Path], Module], task: str):
    written = has(bench, write)
    model = cast(VisionModel, given(bench, lambda: load_vision_model("tiny")))
    loaded = network(cast(ModelPool, bench.services[ModelPool]), model)
    assert (model.task, model.architecture) == (task, type(written).__name__)
    assert type(loaded) is type(written)
    assert all(torch.equal(a, loaded.state_dict()[name]) for name, a in written.state_dict().items())


def test_the_embedded_model_and_folders_at_any_depth_and_behind_links_are_offered(bench: Bench):
    has(bench, tiny_vision.write_classifier, "some/tiny")
    has(bench, tiny_vision.write_classifier, ".hidden/tiny")
    root = bench.folders.models("vision")
    (root / "linked").symlink_to(root / "some", target_is_directory=True)
    names = VISION_MODELS.names(bench.folders)
    assert {"loomlet", "loomlet-digit", "some/tiny", "linked/tiny"} < set(names)
    assert not any("hidden" in name for name in names)


def test_a_network_of_another_task_is_refused_with_both_names(bench: Bench):
    has(bench, tiny_vision.write_classifier)
    why = refused(bench, lambda: detect(load_vision_model("tiny"), any_image()))
    assert "'tiny' is a ViTForImageClassification, which does image classification" in why
    assert "object detection or zero-shot object detection is needed" in why


def test_a_name_that_is_not_there_gets_a_near_one(bench: Bench):
    with pytest.raises(ValueError, match="no vision model 'loomlet-digits'. Did you mean 'loomlet-digit'"):
        VISION_MODELS.locate(bench.folders, "loomlet-digits")


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("model.safetensors", "model.safetensors is missing"),
        ("preprocessor_config.json", "preprocessor_config.json is missing"),
        ("vocab.json", "tokenizer.json is missing, and there is no vocab.json or vocab.txt"),
    ],
)
def test_the_file_that_is_missing_is_named(bench: Bench, file: str, why: str):
    has(bench, tiny_vision.write_clip)
    folder = bench.folders.models("vision") / "tiny"
    for each in {file, "tokenizer.json"} if file == "vocab.json" else {file}:
        (folder / each).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=why):
        read_vision_model(folder, "tiny")


def test_pickles_are_refused(bench: Bench):
    has(bench, tiny_vision.write_classifier)
    folder = bench.folders.models("vision") / "tiny"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="this is a pickle"):
        read_vision_model(folder, "tiny")


def test_pickles_that_may_be_read_are_the_same_network(bench: Bench):
    has(bench, tiny_vision.write_classifier)
    folder = bench.folders.models("vision") / "tiny"
    expected = load_network(read_vision_model(folder, "tiny"), torch.device("cpu")).state_dict()
    pickled(folder / "pytorch_model.bin", load_weights(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    with permission():
        found = load_network(read_vision_model(folder, "tiny"), torch.device("cpu")).state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_what_is_no_vision_model_is_told_with_what_is_known(bench: Bench):
    has(bench, tiny_vision.write_classifier)
    folder = bench.folders.models("vision") / "tiny"
    tiny_vision.changed(folder, architectures=["LlamaForCausalLM"])
    with pytest.raises(ValueError, match="it is a LlamaForCausalLM.*Known are: text-image similarity, image"):
        read_vision_model(folder, "tiny")
    (folder / "config.json").write_text('{"architectures": 3}')
    with pytest.raises(ValueError, match="no model's configuration"):
        read_vision_model(folder, "tiny")


def test_missing_weights_are_named_and_never_made_up(bench: Bench):
    has(bench, tiny_vision.write_classifier)
    path = bench.folders.models("vision") / "tiny" / "model.safetensors"
    weights = load_weights(path)
    del weights["classifier.weight"]
    save_weights(weights, path)
    assert "1 weights are missing or have another shape: classifier.weight" in refused(
        bench, lambda: classify(load_vision_model("tiny"), any_image())
    )


def test_weights_of_another_network_are_refused(bench: Bench):
    has(bench, tiny_vision.write_clip)
    tiny_vision.changed(bench.folders.models("vision") / "tiny", projection_dim=20)
    assert "tiny" in refused(bench, lambda: similarity(load_vision_model("tiny"), any_image(), "a cat"))


def test_code_in_a_folder_is_never_run(bench: Bench, tmp_path: Path):
    has(bench, tiny_vision.write_classifier)
    folder = bench.folders.models("vision") / "tiny"
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    tiny_vision.changed(folder, model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModel": "own.Own"})
    assert "transformers cannot make a network of it" in refused(
        bench, lambda: classify(load_vision_model("tiny"), any_image())
    )
    assert not (tmp_path / "ran").exists()
