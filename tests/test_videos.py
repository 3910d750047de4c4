"""Videos, written and read again."""

import json
from pathlib import Path
from typing import Any, cast

import av
import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.catalogue import Catalogue
from graph.node import node
from nodes import images, loading, saving, transparency, videos
from nodes.codecs import CODEC
from nodes.saving import SavedFiles
from nodes.values import Image
from nodes.videos import Audio, VideoFrames
from tests.running import Bench, any_image, any_mask


@node("Fade")
def fade(frames: int = 12, width: int = 32, height: int = 24) -> Image:
    """A grey that grows lighter from frame to frame, its left half half as light."""
    levels = torch.linspace(0.1, 0.9, frames)[:, None, None, None].repeat(1, height, width, 3)
    levels[:, :, : width // 2] /= 2
    return Image(levels)


@node("Tone")
def tone(seconds: float = 1.0, channels: int = 2) -> Audio:
    """A pure tone."""
    wave = (torch.arange(int(seconds * 16000)) * 440 * 2 * torch.pi / 16000).sin() / 2
    return Audio(wave.repeat(1, channels, 1), 16000)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "input").mkdir()
    bench = Bench.below(tmp_path, images, loading, saving, transparency, videos)
    bench.catalogue = bench.catalogue | Catalogue([fade, tone])
    return bench


def saved(bench: Bench, workflow: WorkflowBuilder) -> Path:
    (shown,) = bench.run(workflow).result.checked().shown.values()
    assert isinstance(shown, SavedFiles) and shown.to_json()["animated"] == [True]
    return shown.paths[0]


def created(fps: float = 8.0, **audio: Any) -> WorkflowBuilder:
    with WorkflowBuilder() as workflow:
        videos.save_video(videos.create_video(fade(), fps, **audio))
    return workflow


def components(bench: Bench, name: str) -> tuple[Tensor, Audio, float]:
    with WorkflowBuilder() as workflow:
        videos.video_components(videos.load_video(name))
    image, audio, fps = bench.last(workflow)
    return image.pixels, audio, fps


def test_a_video_comes_back_with_its_pictures_its_rate_and_its_workflow(bench: Bench):
    workflow = created()
    path = saved(bench, workflow)
    assert path == bench.folders.output / "video" / "ComfyUI_00001_.mp4"
    pixels, audio, fps = components(bench, "video/ComfyUI_00001_.mp4 [output]")
    assert fps == 8 and audio.waveform.shape[-1] == 0
    assert (pixels - fade().pixels).abs().max() < 0.06
    with av.open(str(path)) as container:
        assert json.loads(container.metadata["prompt"]) == workflow.document()


def test_sound_goes_with_the_pictures_and_not_beyond_them(bench: Bench):
    with WorkflowBuilder() as workflow:
        videos.save_video(videos.create_video(fade(), 24.0, tone(2.0)))
    saved(bench, workflow)
    _, audio, _ = components(bench, "video/ComfyUI_00001_.mp4 [output]")
    assert audio.sample_rate == 16000 and audio.waveform.shape[:2] == (1, 2)
    assert audio.waveform.shape[2] / 16000 == pytest.approx(0.5, abs=0.15)
    spectrum = cast(Any, torch.fft).rfft(audio.waveform[0, 0, 2000:6000]).abs()
    assert int(spectrum.argmax()) * 16000 / 4000 == pytest.approx(440, abs=5)


def test_a_loaded_file_is_saved_without_compressing_it_again(bench: Bench):
    first = saved(bench, created())
    with WorkflowBuilder() as workflow:
        videos.save_video(videos.load_video("video/ComfyUI_00001_.mp4 [output]"), filename_prefix="copy")
    second = saved(bench, workflow)

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(video=0) if packet.size]

    assert packets(first) == packets(second) and len(packets(first)) == 12
    with av.open(str(second)) as container:
        assert json.loads(container.metadata["prompt"]) == workflow.document()


@pytest.mark.parametrize("codec", ["vp9", "av1"])
def test_a_webm_has_the_pictures_and_the_workflow(bench: Bench, codec: Any):
    with WorkflowBuilder() as workflow:
        videos.save_webm(fade(width=64, height=64), codec=codec, fps=12.5, crf=10.0)
    path = saved(bench, workflow)
    pixels, _, fps = components(bench, f"{path.name} [output]")
    assert path.suffix == ".webm" and fps == pytest.approx(12.5, abs=0.01)
    assert (pixels - fade(width=64, height=64).pixels).abs().mean() < 0.05
    with av.open(str(path)) as container:
        texts = {name.lower(): text for name, text in container.metadata.items()}
        assert json.loads(texts["prompt"]) == workflow.document()


def test_a_transparent_webm_is_transparent(bench: Bench):
    with WorkflowBuilder() as workflow:
        videos.save_webm(transparency.join_image_with_alpha(any_image(32, 32, batch=2), any_mask()))
    with av.open(str(saved(bench, workflow))) as container:
        assert container.streams.video[0].metadata.get("alpha_mode") == "1"


def test_odd_sides_are_refused_with_advice(bench: Bench):
    with WorkflowBuilder() as workflow:
        videos.save_video(videos.create_video(any_image(31, 8)))
    assert "31x8, but H.264 takes only even sides; crop or resize them" in str(bench.run(workflow).failure)


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\x00\x00\x00\x20ftypisom" + bytes(50)])
def test_what_is_no_video_is_refused_with_advice(bench: Bench, content: bytes):
    (bench.folders.inputs[0] / "a.mp4").write_bytes(content)
    for use in (videos.video_components, videos.save_video):
        with WorkflowBuilder() as workflow:
            use(videos.load_video("a.mp4"))
        assert "cannot be used: it is no video, or damaged" in str(bench.run_last(workflow).failure)


def test_videos_are_kept_on_disk():
    video = videos.create_video(any_image(), 5.0, tone(0.1))
    encoded = CODEC.encode(video)
    found = CODEC.decode(encoded.tree, encoded.blocks)
    assert isinstance(found, VideoFrames) and found.fps == 5.0 and found.audio is not None
    assert torch.equal(found.audio.waveform, tone(0.1).waveform)
