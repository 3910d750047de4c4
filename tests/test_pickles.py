"""Weights in pickles: refused until somebody allows them, and then read without running anything."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter, ParameterDict

from graph.folders import Folders
from nodes.checkpoints import CHECKPOINTS
from nodes.model_errors import ModelError
from nodes.open_weights import OpenWeights
from nodes.weight_files import read_header, read_whole_header
from tests.adapter_files import noise
from tests.pickle_files import permission, pickled

WEIGHTS = {"a.weight": noise(3, 4, seed=1), "b": noise(5, seed=2).half()}


@pytest.fixture
def allowed() -> Iterator[None]:
    with permission():
        yield


def assert_read(path: Path, expected: Mapping[str, Tensor]) -> None:
    files = OpenWeights()
    header = read_header(path)
    assert {name: entry.shape for name, entry in header.items()} == {n: tuple(t.shape) for n, t in expected.items()}
    assert all(torch.equal(files.tensor(path, name), tensor) for name, tensor in expected.items())
    assert sum(entry.nbytes for entry in header.values()) == sum(tensor.nbytes for tensor in expected.values())


def test_a_pickle_is_refused_with_what_to_do(tmp_path: Path):
    path = pickled(tmp_path / "old.ckpt", WEIGHTS)
    with pytest.raises(ModelError, match="old.ckpt: this is a pickle, which can run any code.*safetensors.*convert"):
        read_header(path)
    with pytest.raises(ModelError, match="--allow-pickle"):
        OpenWeights().tensor(path, "b")


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "before torch 1.6"])
@pytest.mark.parametrize("wrapping", ["", "state_dict", "params_ema", "params", "string_to_param"])
def test_tensors_are_read_from_what_they_are_wrapped_in(tmp_path: Path, zipped: bool, wrapping: str):
    content = {wrapping: WEIGHTS, "optimizer": {"state": noise(9, seed=3)}, "step": 7} if wrapping else WEIGHTS
    path = pickled(tmp_path / "any.pt", content, _use_new_zipfile_serialization=zipped)
    assert_read(path, WEIGHTS)


@pytest.mark.usefixtures("allowed")
def test_containers_in_containers_become_names_and_what_stands_beside_is_told(tmp_path: Path):
    content = {768: ({"linear.0.weight": WEIGHTS["b"]}, {"x": WEIGHTS["a.weight"]}), "layers": [1, 2, 1], "name": "ink"}
    path = pickled(tmp_path / "hyper.pt", content)
    assert_read(path, {"768.0.linear.0.weight": WEIGHTS["b"], "768.1.x": WEIGHTS["a.weight"]})
    assert read_whole_header(path).metadata == {"layers": "[1, 2, 1]", "name": "ink"}


@pytest.mark.usefixtures("allowed")
def test_parameters_and_what_training_programs_leave_are_no_obstacle(tmp_path: Path):
    words = ParameterDict({"*": Parameter(WEIGHTS["a.weight"])})
    assert_read(pickled(tmp_path / "words.pt", {"string_to_param": words}), {"*": WEIGHTS["a.weight"]})
    import numpy

    left = {"state_dict": WEIGHTS, "callbacks": {"best_model_score": numpy.float64(0.5)}}
    assert_read(pickled(tmp_path / "trained.ckpt", left), WEIGHTS)


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, zipped: bool):
    content = {"state_dict": WEIGHTS | {"x": Hostile(tmp_path / "ran")}}
    path = pickled(tmp_path / "evil.ckpt", content, _use_new_zipfile_serialization=zipped)
    refused = pytest.raises(ModelError, match=r"holds more than numbers: \w+.mkdir, which is not run")
    with refused:
        read_header(path)
    with refused:
        OpenWeights().tensor(path, "b")
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    "content", [b"", b"x" * 40, b"\x80\x02}.", b"PK\x03\x04" * 30, b"\x80\x02]q\x00h\x00a."], ids=repr
)
def test_what_is_no_pickle_of_weights_holds_nothing_or_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "odd.pt"
    path.write_bytes(content)
    try:
        assert read_header(path) == {}
    except ModelError as error:
        assert "not a file of weights, or damaged" in str(error) and "\n" not in str(error)


@pytest.mark.usefixtures("allowed")
def test_every_cut_of_a_pickle_is_refused_in_one_sentence(tmp_path: Path):
    whole = pickled(tmp_path / "whole.pt", WEIGHTS).read_bytes()
    for at in range(0, len(whole), len(whole) // 40):
        path = tmp_path / f"cut{at}.pt"
        path.write_bytes(whole[:at])
        with pytest.raises(ModelError, match="not a file of weights, or damaged"):
            read_header(path)


def test_pickles_are_listed_only_where_they_may_be_read(tmp_path: Path):
    folders = Folders.below(tmp_path)
    pickled(folders.models("checkpoints") / "old.ckpt", WEIGHTS)
    assert "old.ckpt" not in CHECKPOINTS.names(folders)
    with permission():
        assert "old.ckpt" in CHECKPOINTS.names(folders)
