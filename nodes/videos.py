"""Videos: load them, take them apart into pictures and sound, put them together, and save them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from graph.folders import Folders
from graph.identity import content_identity
from graph.literals import Widget
from graph.node import node
from graph.values import INJECTED, Value
from nodes.documents import Documents
from nodes.loading import InputFiles
from nodes.output_names import place_output, write_atomically
from nodes.saving import FilenamePrefix, SavedFiles
from nodes.values import Image, Weights

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from nodes.video_files import Encoding, Film, Sound

VIDEOS = InputFiles("video", frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"}))
VideoName = Annotated[
    str, VIDEOS, Field(description="A file in the input folder, or below it."), Widget(video_upload=True)
]


@dataclass(frozen=True, slots=True)
class Audio(Value, kind="AUDIO"):
    """Sound, -1…1, with so many samples per second; without any samples it is none."""

    waveform: "Float[Tensor, '1 channels samples']"
    sample_rate: int


class Video(Value, kind="VIDEO"):
    """A video: a file, or pictures that follow one another."""


@dataclass(frozen=True, slots=True)
class VideoFile(Video):
    """A reference to a file, whose pictures are read when a node needs them."""

    file: Weights


@dataclass(frozen=True, slots=True)
class VideoFrames(Video):
    """Pictures at so many per second, with sound."""

    images: Image
    fps: float
    audio: Audio | None = None


class VideoComponents(NamedTuple):
    """Pictures, sound, and pictures per second."""

    images: Image
    audio: Audio
    fps: float


@node("LoadVideo", category="image/video", title="Load Video", lane="io")
def load_video(file: VideoName, folders: Folders = INJECTED) -> Video:
    """A video file from the input folder."""
    path = VIDEOS.locate(folders, file)
    return VideoFile(Weights(path, content_identity(path), file))


@node("CreateVideo", category="image/video", title="Create Video")
def create_video(
    images: Image,
    fps: Annotated[float, Field(ge=1, le=120, description="Pictures per second."), Widget(step=1)] = 30.0,
    audio: Audio | None = None,
) -> Video:
    """A video of the pictures of a batch."""
    return VideoFrames(images, fps, audio)


@node("GetVideoComponents", category="image/video", title="Get Video Components")
def video_components(video: Video) -> VideoComponents:
    """The pictures of a video, its sound, and how many pictures a second has. A silent one has sound of no length."""
    import torch

    film = _film(video)
    silence = Audio(torch.zeros(1, 1, 0), 44100)
    sound = silence if film.sound is None else Audio(film.sound.waveform.unsqueeze(0), film.sound.rate)
    return VideoComponents(Image(film.frames), sound, film.fps)


@node("SaveVideo", category="image/video", title="Save Video", lane="io")
def save_video(
    video: Video,
    filename_prefix: FilenamePrefix = "video/ComfyUI",
    format: Literal["auto", "mp4"] = "auto",
    codec: Literal["auto", "h264"] = "auto",
    folders: Folders = INJECTED,
    documents: Documents = INJECTED,
) -> SavedFiles:
    """Save a video as MP4 with the workflow in it. A loaded MP4 file is not compressed again."""
    from nodes.video_files import copied, encode_video, is_mp4

    texts = documents.texts()
    if isinstance(video, VideoFile) and is_mp4(video.file.path):
        return _saved(folders, filename_prefix, ".mp4", copied(video.file.path, texts))
    film = _film(video)
    return _saved(folders, filename_prefix, ".mp4", encode_video(film.frames[..., :3], film.fps, film.sound, texts))


@node("SaveWEBM", category="image/video", title="Save WEBM", lane="io", stage="experimental")
def save_webm(
    images: Image,
    filename_prefix: FilenamePrefix = "ComfyUI",
    codec: Annotated[Literal["vp9", "av1"], Field(description="vp9 keeps transparency.")] = "vp9",
    fps: Annotated[float, Field(ge=0.01, le=1000, description="Pictures per second."), Widget(step=0.01)] = 24.0,
    crf: Annotated[
        float, Field(ge=0, le=63, description="Higher makes smaller files of lower quality."), Widget(step=1)
    ] = 32.0,
    folders: Folders = INJECTED,
    documents: Documents = INJECTED,
) -> SavedFiles:
    """Save the pictures of a batch as a WebM video, with the workflow in it."""
    from nodes.video_files import encode_video

    encoding = _webm(codec, round(crf), images.pixels.shape[-1] == 4)
    frames = images.pixels if encoding.pixels.startswith("yuva") else images.rgb
    return _saved(folders, filename_prefix, ".webm", encode_video(frames, fps, None, documents.texts(), encoding))


def _webm(codec: Literal["vp9", "av1"], crf: int, transparent: bool) -> "Encoding":
    from nodes.video_files import Encoding

    if codec == "av1":
        return Encoding("webm", "libsvtav1", "yuv420p10le", {"crf": f"{crf}", "preset": "6"})
    return Encoding("webm", "libvpx-vp9", "yuva420p" if transparent else "yuv420p", {"crf": f"{crf}", "b": "0"})


def _film(video: Video) -> "Film":
    from nodes.video_files import Film, decode_video

    match video:
        case VideoFile(file):
            return decode_video(file.path)
        case VideoFrames(images, fps, audio):
            return Film(images.pixels, fps, _heard(audio))
        case _:
            raise TypeError(f"a {type(video).__name__} is no video that is known here")


def _heard(audio: Audio | None) -> "Sound | None":
    from nodes.video_files import Sound

    if audio is None or not audio.waveform.shape[-1]:
        return None
    return Sound(audio.waveform[0], audio.sample_rate)


def _saved(folders: Folders, filename_prefix: str, suffix: str, data: bytes) -> SavedFiles:
    place = place_output(folders.output, filename_prefix)
    path: Path = write_atomically(place.folder, place.prefix, suffix, data)
    return SavedFiles("images", "output", place.subfolder, (path,), animated=True)
