"""Read and write video files with their sound, by PyAV (FFmpeg's libraries)."""

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import av
import numpy as np
import torch
from av.error import FFmpegError
from jaxtyping import Float
from torch import Tensor

from nodes.file_errors import VideoError
from nodes.picture_files import to_uint8

Frames = Float[Tensor, "frames height width channels"]
Waveform = Float[Tensor, "channels samples"]
Container = Literal["mp4", "webm"]

MOST_PIXELS = 1 << 30
"""Of all frames together: 13 GB as pictures."""

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


class Sound(NamedTuple):
    """-1…1, and samples per second."""

    waveform: Waveform
    rate: int


class Film(NamedTuple):
    """What is in a video file; frames 0…1."""

    frames: Frames
    fps: float
    sound: Sound | None


class Encoding(NamedTuple):
    """How frames become a file: the container, FFmpeg's name of the encoder, its format of pixels and options."""

    container: Container
    encoder: str
    pixels: str
    options: dict[str, str]
    sound: str | None = None


H264 = Encoding("mp4", "libx264", "yuv420p", {}, sound="aac")


def decode_video(path: Path) -> Film:
    """The first video stream and the first sound stream of a file. Raises VideoError."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(path, "there are no pictures in it. Choose a file with a video stream.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            _refuse_oversized(path, stream.width, stream.height, stream.frames)
            fps = float(stream.average_rate or 1)
            frames = np.stack(list(_frames(path, cast(Any, container).decode(stream))))
            container.seek(0)
            sound = _sound(container, container.streams.audio[0]) if container.streams.audio else None
    except VideoError:
        raise
    except FileNotFoundError as error:
        raise VideoError(path, "there is no such file. Check the name, or put it into the input folder.") from error
    except (FFmpegError, ValueError) as error:
        raise VideoError(path, f"it is no video, or damaged ({error}). Copy or export it again.") from error
    return Film(torch.as_tensor(frames).float() / 255.0, fps, sound)


def _frames(path: Path, decoded: Iterable[Any]) -> Iterator[np.ndarray]:
    pixels = 0
    for frame in decoded:
        pixels += frame.width * frame.height
        _refuse_oversized(path, 1, 1, pixels)
        yield frame.to_ndarray(format="rgb24")


def _refuse_oversized(path: Path, width: int, height: int, frames: int) -> None:
    if width * height * frames > MOST_PIXELS:
        raise VideoError(
            path, f"its frames have more than {MOST_PIXELS:,} pixels together. Use a shorter or smaller one."
        )


def _sound(container: Any, stream: Any) -> Sound | None:
    resampler = av.AudioResampler(format="fltp")
    frames = [frame for decoded in container.decode(stream) for frame in resampler.resample(decoded)]
    parts = [frame.to_ndarray() for frame in (*frames, *resampler.resample(None))]
    if not parts:
        return None
    return Sound(torch.as_tensor(np.concatenate(parts, axis=1)).float(), int(stream.rate))


def encode_video(
    frames: Frames, fps: float, sound: Sound | None, texts: dict[str, str], encoding: Encoding = H264
) -> bytes:
    """A video file with these texts in its metadata. Sound that is longer than the pictures is cut off."""
    file = io.BytesIO()
    flags = {"movflags": "use_metadata_tags"} if encoding.container == "mp4" else {}
    height, width = frames.shape[1:3]
    if encoding.encoder == "libx264" and (width % 2 or height % 2):
        raise ValueError(f"the pictures are {width}x{height}, but H.264 takes only even sides; crop or resize them")
    rate = Fraction(round(fps * 1000), 1000)
    with cast(Any, av.open)(file, "w", format=encoding.container, options=flags) as container:
        container.metadata.update(texts)
        stream = container.add_stream(encoding.encoder, rate=rate, options=encoding.options)
        stream.width, stream.height, stream.pix_fmt = width, height, encoding.pixels
        audio = None if sound is None or encoding.sound is None else _sound_stream(container, encoding.sound, sound)
        for pixels in to_uint8(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[-1] == 4 else "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None and sound is not None:
            _mux_sound(container, audio, sound, ceil(sound.rate * len(frames) / rate))
    return file.getvalue()


def _sound_stream(container: Any, encoder: str, sound: Sound) -> Any:
    channels = sound.waveform.shape[0]
    if channels not in LAYOUTS:
        raise ValueError(f"the sound has {channels} channels; a video can have {', '.join(map(str, LAYOUTS))}")
    return container.add_stream(encoder, rate=sound.rate, layout=LAYOUTS[channels])


def _mux_sound(container: Any, stream: Any, sound: Sound, samples: int) -> None:
    waveform = sound.waveform[:, :samples].float().contiguous().numpy()
    frame = av.AudioFrame.from_ndarray(waveform, format="fltp", layout=LAYOUTS[len(waveform)])
    frame.sample_rate = sound.rate
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def is_mp4(path: Path) -> bool:
    """Whether a file is MP4 with H.264 pictures, so that saving it needs no new compression."""
    try:
        with av.open(str(path)) as container:
            codecs = [stream.codec_context.name for stream in container.streams.video]
            return "mp4" in container.format.name and codecs == ["h264"]
    except FFmpegError:
        return False


def copied(path: Path, texts: dict[str, str]) -> bytes:
    """The same pictures and sound in an MP4 file, untouched, with these texts in its metadata."""
    file = io.BytesIO()
    flags = {"movflags": "use_metadata_tags"}
    with av.open(str(path)) as source, cast(Any, av.open)(file, "w", format="mp4", options=flags) as container:
        container.metadata.update(texts)
        kept = [stream for stream in source.streams if stream.type in ("video", "audio")]
        streams = {stream.index: container.add_stream_from_template(stream) for stream in kept}
        for packet in cast("Iterable[Any]", source.demux(kept)):
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
    return file.getvalue()
