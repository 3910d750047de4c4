import errno
import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from graph.builder import WorkflowBuilder
from graph.cancellation import Cancellation
from graph.errors import Cancelled
from graph.events import Event
from nodes import images, saving
from nodes.latent_files import decode_latent
from nodes.picture_files import png_texts
from nodes.saving import SavedFiles
from tests.running import Bench, Outcome, any_image, any_latent


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench.below(tmp_path, images, saving)


def saving_pictures(prefix: str = "ComfyUI", batch: int = 1) -> WorkflowBuilder:
    with WorkflowBuilder() as workflow:
        saving.save_image(images.invert_image(any_image(width=12, batch=batch)), filename_prefix=prefix)
    return workflow


def saved(outcome: Outcome) -> SavedFiles:
    outcome.result.checked()
    (shown,) = outcome.result.shown.values()
    assert isinstance(shown, SavedFiles)
    return shown


def test_a_second_run_reuses_everything_but_the_sink(bench: Bench):
    assert bench.run(saving_pictures()).ran == ["AnyImage", "ImageInvert", "SaveImage"]
    again = bench.run(saving_pictures())
    assert (again.ran, again.reused) == (["SaveImage"], ["ImageInvert"])


def test_saving_twice_counts_on(bench: Bench):
    names = [path.name for _ in range(2) for path in saved(bench.run(saving_pictures(batch=2))).paths]
    assert names == [f"ComfyUI_{number:05}_.png" for number in (1, 2, 3, 4)]


def test_the_default_prefix_is_the_references():
    assert saving.save_image.inputs["filename_prefix"].default == "ComfyUI"
    assert saving.save_latent.inputs["filename_prefix"].default == "latents/ComfyUI"


def test_a_saved_picture_carries_its_workflow(bench: Bench):
    workflow = saving_pictures()
    (path,) = saved(bench.run(workflow, extra={"workflow": {"nodes": [], "title": "Größe"}})).paths
    texts = {name: json.loads(text) for name, text in png_texts(path.read_bytes()).items()}
    assert texts == {"prompt": workflow.document(), "workflow": {"nodes": [], "title": "Größe"}}


def test_metadata_is_ascii_so_that_every_reader_takes_it_for_the_same(bench: Bench):
    document = {"title": "Größe 雨 \ud83d"}
    (path,) = saved(bench.run(saving_pictures(), extra={"workflow": document})).paths
    assert json.loads(png_texts(path.read_bytes())["workflow"]) == document
    assert b"tEXtworkflow\0" in path.read_bytes()


def test_the_pixels_are_saved_truncated(bench: Bench):
    (path,) = saved(bench.run(saving_pictures())).paths
    with Image.open(path) as image:
        found = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(8, 12, 3)
    assert torch.equal(found, ((1 - any_image(width=12).pixels[0]) * 255).to(torch.uint8))


def test_the_prefix_may_hold_a_folder_the_size_and_the_place_in_the_batch(bench: Bench):
    shown = saved(bench.run(saving_pictures("new/%width%x%height%_%batch_num%", batch=2)))
    assert [path.name for path in shown.paths] == ["12x8_0_00001_.png", "12x8_1_00002_.png"]
    assert shown.paths[0].parent == bench.folders.output / "new"
    assert shown.to_json() == {
        "images": [{"filename": path.name, "subfolder": "new", "type": "output"} for path in shown.paths]
    }


def test_a_preview_goes_to_the_temporary_files_under_a_new_name(bench: Bench):
    with WorkflowBuilder() as workflow:
        saving.preview_image(any_image())
    first, second = (saved(bench.run(workflow)) for _ in range(2))
    assert first.paths[0].parent == bench.folders.temp
    assert first.paths[0].name.startswith("ComfyUI_temp_") and first.paths != second.paths
    assert first.to_json()["images"][0]["type"] == "temp"
    assert json.loads(png_texts(first.paths[0].read_bytes())["prompt"]) == workflow.document()


def test_a_latent_is_saved_with_its_workflow(bench: Bench):
    with WorkflowBuilder() as workflow:
        saving.save_latent(any_latent(batch=2))
    shown = saved(bench.run(workflow))
    assert shown.to_json() == {
        "latents": [{"filename": "ComfyUI_00001_.latent", "subfolder": "latents", "type": "output"}]
    }
    assert torch.equal(decode_latent(shown.paths[0]), any_latent(batch=2).samples)
    assert b'"prompt"' in shown.paths[0].read_bytes()


def test_every_picture_of_a_batch_is_reported(bench: Bench):
    assert bench.run(saving_pictures(batch=3)).progress == [(1, 3), (2, 3), (3, 3)]


def test_cancelling_stops_between_two_pictures_and_leaves_whole_files(bench: Bench):
    cancellation = Cancellation()

    def stop(event: Event) -> None:
        if list(bench.folders.output.glob("*.png")):
            cancellation.cancel()

    with pytest.raises(Cancelled):
        bench.run(saving_pictures(batch=5), watch=stop, cancellation=cancellation)
    names = sorted(path.name for path in bench.folders.output.iterdir())
    assert names == ["ComfyUI_00001_.png", "ComfyUI_00002_.png"]


@pytest.mark.parametrize("prefix", ["../outside", "/elsewhere/a", ".."])
def test_a_prefix_that_leaves_the_output_folder_is_one_failure(bench: Bench, prefix: str):
    failure = bench.run(saving_pictures(prefix)).failure
    assert "Use a filename_prefix that stays in there" in str(failure)
    assert str(failure).startswith("node 3 (SaveImage) failed: Cannot save to ")


def test_a_file_in_place_of_the_output_folder_is_one_failure(bench: Bench):
    bench.folders.output.touch()
    assert "a file is in the way" in str(bench.run(saving_pictures()).failure)


def test_an_output_folder_that_cannot_be_written_is_one_failure(bench: Bench):
    bench.folders.output.mkdir(mode=0o500)
    if os.access(bench.folders.output, os.W_OK):
        pytest.skip("this user may write everywhere")
    assert "may not be written to. Change its permissions" in str(bench.run(saving_pictures()).failure)


def test_a_full_disk_is_one_failure_and_loses_no_other_output(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    failed = bench.run(saving_pictures())
    assert "the disk is full. Free some space" in str(failed.failure)
    assert not list(bench.folders.output.iterdir())
    monkeypatch.undo()
    assert bench.run(saving_pictures()).reused == ["ImageInvert"]


def save_often(folder: Path) -> None:
    bench = Bench.below(folder, images, saving)
    for _ in range(10):
        bench.run(saving_pictures(batch=2)).result.checked()


def test_two_processes_saving_at_once_lose_nothing(tmp_path: Path):
    other = multiprocessing.get_context("spawn").Process(target=save_often, args=(tmp_path,))
    other.start()
    while not list(tmp_path.glob("output/*.png")):
        assert other.is_alive()
        time.sleep(0.005)
    save_often(tmp_path)
    other.join()
    assert other.exitcode == 0
    names = sorted(path.name for path in (tmp_path / "output").iterdir())
    assert names == [f"ComfyUI_{number:05}_.png" for number in range(1, 41)]
