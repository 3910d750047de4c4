import pytest
import torch
from PIL import ImageFont

from nodes.maths.sheets import MOST_LINES, contact_sheet, wrap


def test_pictures_lie_in_a_grid_unchanged():
    pictures = [torch.rand(10, 12, 3) for _ in range(5)]
    sheet = contact_sheet(pictures, columns=2, padding=3)
    assert sheet.shape == (1, 3 + 3 * 13, 3 + 2 * 15, 3)
    assert torch.equal(sheet[0, 3:13, 3:15], pictures[0])
    assert torch.equal(sheet[0, 16:26, 18:30], pictures[3])


def test_without_columns_the_grid_is_as_square_as_it_gets():
    assert contact_sheet([torch.zeros(10, 10, 3)] * 8, padding=0).shape == (1, 30, 30, 3)
    assert contact_sheet([torch.zeros(10, 10, 3)], columns=7, padding=0).shape == (1, 10, 10, 3)


def test_captions_make_room_below_and_are_dark_on_light():
    plain = contact_sheet([torch.ones(100, 100, 3)])
    captioned = contact_sheet([torch.ones(100, 100, 3)], ["a circle"])
    assert captioned.shape[1] > plain.shape[1] and captioned.shape[2] == plain.shape[2]
    assert captioned.min() < 0.2


def test_captions_are_light_on_a_dark_background():
    sheet = contact_sheet([torch.zeros(100, 100, 3)], ["a circle"], background="#101014")
    assert sheet.max() > 0.8
    torch.testing.assert_close(sheet[0, 0, 0] * 255, torch.tensor([16.0, 16.0, 20.0]))


def test_long_captions_wrap_within_the_width():
    font = ImageFont.load_default(12)
    lines = wrap("a large blue square to the left of a small yellow triangle", font, 100)
    assert len(lines) > 2
    assert all(font.getlength(line) <= 100 for line in lines)
    assert " ".join(lines) == "a large blue square to the left of a small yellow triangle"


def test_one_long_word_is_broken_and_endless_text_ends_in_an_ellipsis():
    font = ImageFont.load_default(12)
    assert "".join(wrap("x" * 60, font, 100)) == "x" * 60
    endless = wrap("word " * 200, font, 100)
    assert len(endless) == MOST_LINES
    assert endless[-1].endswith("…") and font.getlength(endless[-1]) <= 100


def test_pictures_of_different_sizes_are_centred():
    sheet = contact_sheet([torch.ones(4, 4, 3), torch.ones(8, 8, 3)], columns=2, padding=0, background="black")
    assert sheet.shape == (1, 8, 16, 3)
    assert sheet[0, 2:6, 2:6].min() == 1 and sheet[0, :, :8].sum() == 4 * 4 * 3


@pytest.mark.parametrize("captions", [[""], ["\n\n"], ["a"], ["a\nb", "more captions", "than pictures"]])
def test_any_captions_will_do(captions: list[str]):
    assert contact_sheet([torch.rand(8, 8, 3)], captions).ndim == 4


def test_no_pictures_and_unknown_colours_are_refused():
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([])
    with pytest.raises(ValueError, match="nonesuch"):
        contact_sheet([torch.zeros(4, 4, 3)], background="nonesuch")
