import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from nodes import picture_files
from nodes.file_errors import PictureError
from nodes.picture_files import decode_mask, decode_picture, encode_png, png_texts, to_uint8


def grey(*values: int) -> Image.Image:
    """A picture one pixel high."""
    return Image.fromarray(np.array([values], dtype=np.uint8))


def test_eight_bits_are_truncated_not_rounded():
    pixels = torch.tensor([0.5, 0.25, 0.1, -1.0, 2.0, float("nan")])
    assert to_uint8(pixels).tolist() == [127, 63, 25, 0, 255, 0]


def test_a_picture_survives_writing_and_reading(tmp_path: Path):
    pixels = torch.arange(4 * 6 * 3).reshape(1, 4, 6, 3) / 255.0
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(to_uint8(pixels)[0], {}))
    picture = decode_picture(path)
    torch.testing.assert_close(picture.pixels, torch.as_tensor(to_uint8(pixels) / np.float32(255)))
    assert torch.equal(picture.mask, torch.zeros(1, 64, 64))


def test_the_mask_is_where_the_picture_is_transparent(tmp_path: Path):
    Image.merge("RGBA", [grey(9, 9), grey(9, 9), grey(9, 9), grey(0, 255)]).save(tmp_path / "a.png")
    assert torch.equal(decode_picture(tmp_path / "a.png").mask, torch.Tensor([[[1, 0]]]))
    assert torch.equal(decode_mask(tmp_path / "a.png", "alpha"), torch.Tensor([[[1, 0]]]))


def test_a_transparent_palette_entry_is_a_mask(tmp_path: Path):
    image = grey(0, 1).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "a.png", transparency=1)
    picture = decode_picture(tmp_path / "a.png")
    assert torch.equal(picture.mask, torch.Tensor([[[0, 1]]]))
    assert torch.equal(picture.pixels, torch.Tensor([[[[1, 0, 0], [0, 1, 0]]]]))


def test_sixteen_bit_greys_are_scaled(tmp_path: Path):
    Image.fromarray(np.array([[0, 255 * 100, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    expected = torch.Tensor([[[0, 100 / 255, 1]]])
    torch.testing.assert_close(decode_picture(tmp_path / "a.png").pixels[..., 0], expected)
    torch.testing.assert_close(decode_mask(tmp_path / "a.png", "red"), expected)


def test_cameras_on_their_side_are_turned_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert decode_picture(tmp_path / "a.jpg").pixels.shape == (1, 8, 4, 3)
    assert decode_mask(tmp_path / "a.jpg", "green").shape == (1, 8, 4)


def test_frames_become_a_batch_and_other_sizes_are_dropped(tmp_path: Path):
    frames = [Image.new("RGB", size, colour) for size, colour in (((4, 3), "red"), ((5, 5), "lime"), ((4, 3), "blue"))]
    frames[0].save(tmp_path / "a.tiff", save_all=True, append_images=frames[1:])
    picture = decode_picture(tmp_path / "a.tiff")
    assert torch.equal(picture.pixels[:, 0, 0], torch.Tensor([[1, 0, 0], [0, 0, 1]]))
    assert picture.mask.shape == (2, 64, 64)


def test_frames_with_and_without_alpha_share_one_batch(tmp_path: Path):
    frames = [Image.new("RGB", (4, 3)), Image.new("RGBA", (4, 3))]
    frames[0].save(tmp_path / "a.tiff", save_all=True, append_images=frames[1:])
    assert torch.equal(decode_picture(tmp_path / "a.tiff").mask.mean((1, 2)), torch.Tensor([0, 1]))


def test_channels_of_a_mask(tmp_path: Path):
    Image.merge("RGB", [grey(0, 51), grey(255, 0), grey(0, 255)]).save(tmp_path / "a.png")
    torch.testing.assert_close(decode_mask(tmp_path / "a.png", "red"), torch.Tensor([[[0, 0.2]]]))
    assert torch.equal(decode_mask(tmp_path / "a.png", "blue"), torch.Tensor([[[0, 1]]]))
    assert torch.equal(decode_mask(tmp_path / "a.png", "alpha"), torch.Tensor([[[0, 0]]]))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_files_cut_short_are_refused(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PictureError, match="damaged or cut short") as raised:
        decode_picture(path)
    assert raised.value.path == path


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["PNG", "TIFF", "GIF"]), st.dictionaries(st.integers(0, 180), st.binary(min_size=1, max_size=1)))
def test_damage_anywhere_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: str, damage: dict[int, bytes]
):
    path = tmp_path_factory.mktemp("damaged") / "a"
    Image.new("RGB", (5, 4), "red").save(path, format=kind)
    data = bytearray(path.read_bytes())
    for place, byte in damage.items():
        data[place : place + 1] = byte
    path.write_bytes(data)
    with suppress(PictureError):
        assert decode_picture(path).pixels.shape[-1] == 3


def test_what_is_not_a_picture_is_refused(tmp_path: Path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    for name, reason in (
        ("empty.png", r"empty \(0 bytes\)"),
        ("text.png", "not a picture"),
        ("none.png", "no such file"),
        (".", "is a folder"),
    ):
        with pytest.raises(PictureError, match=reason):
            decode_picture(tmp_path / name)
        with pytest.raises(PictureError, match=reason):
            decode_mask(tmp_path / name, "red")


def test_oversized_pictures_are_refused_before_they_are_decoded(tmp_path: Path):
    Image.new("1", (16385, 1)).save(tmp_path / "wide.png")
    with pytest.raises(PictureError, match="16385x1, more than 16384 on a side"):
        decode_picture(tmp_path / "wide.png")


def test_what_pillow_takes_for_a_bomb_is_refused_but_its_warning_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (15, 10)).save(tmp_path / "large.png")
    Image.new("L", (30, 10)).save(tmp_path / "bomb.png")
    assert decode_picture(tmp_path / "large.png").pixels.shape == (1, 10, 15, 3)
    with pytest.raises(PictureError, match="too large"):
        decode_picture(tmp_path / "bomb.png")


def test_a_file_of_endlessly_many_frames_is_refused(tmp_path: Path):
    frames = [Image.new("1", (8000, 8000)) for _ in range(5)]
    frames[0].save(tmp_path / "a.tiff", save_all=True, append_images=frames[1:], compression="group4")
    with pytest.raises(PictureError, match="its 5 frames of 8000x8000 are too much"):
        decode_picture(tmp_path / "a.tiff")


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(["prompt", "workflow", "note"]), st.text(st.characters(codec="utf-8"))))
def test_texts_survive_in_a_png(tmp_path_factory: pytest.TempPathFactory, text: dict[str, str]):
    path = tmp_path_factory.mktemp("png") / "a.png"
    path.write_bytes(encode_png(np.zeros((2, 2, 3), dtype=np.uint8), text))
    assert png_texts(path.read_bytes()) == text


def test_all_three_kinds_of_text_are_read_also_behind_the_picture(tmp_path: Path):
    info = PngImagePlugin.PngInfo()
    info.add_text("plain", "é")
    info.add_text("packed", "é" * 100, zip=True)
    info.add_itxt("international", "雨", lang="ja", tkey="ame")
    info.add_itxt("both", "雨" * 100, zip=True)
    info.add(b"tEXt", b"late\0text", after_idat=True)
    grey(1).save(tmp_path / "a.png", pnginfo=info)
    expected = {"plain": "é", "packed": "é" * 100, "international": "雨", "both": "雨" * 100, "late": "text"}
    assert png_texts((tmp_path / "a.png").read_bytes()) == expected


def test_a_damaged_png_still_gives_the_texts_before_the_damage(tmp_path: Path):
    info = PngImagePlugin.PngInfo()
    info.add(b"zTXt", b"broken\0\0not zlib")
    info.add_text("prompt", "{}")
    info.add_text("workflow", "x" * 1000)
    grey(1).save(tmp_path / "a.png", pnginfo=info)
    path = tmp_path / "a.png"
    path.write_bytes(path.read_bytes()[:500])
    assert png_texts(path.read_bytes()) == {"prompt": "{}"}


def test_a_text_that_unpacks_to_gigabytes_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(picture_files, "LONGEST_TEXT", 1000)
    info = PngImagePlugin.PngInfo()
    info.add(b"zTXt", b"long\0\0" + zlib.compress(b"x" * 100_000))
    grey(1).save(tmp_path / "a.png", pnginfo=info)
    assert len(png_texts((tmp_path / "a.png").read_bytes())["long"]) == 1000


def test_only_a_png_carries_text():
    assert png_texts(b"\xff\xd8\xff") == {}


def test_reading_texts_imports_nothing_heavy(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(np.zeros((2, 2, 3), dtype=np.uint8), {"prompt": "{}"}))
    program = (
        "import sys, pathlib; from nodes import latent_files, output_names, picture_files;"
        "content = pathlib.Path(sys.argv[1]).read_bytes();"
        "print(picture_files.png_texts(content), {'torch', 'PIL', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout == "{'prompt': '{}'} set()\n"
