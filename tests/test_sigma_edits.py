"""Cutting and bending noise levels."""

import math

import pytest
import torch

from nodes.maths.sigma_edits import (
    Spacing,
    extend_sigmas,
    flip_sigmas,
    set_first_sigma,
    slice_sigmas,
    split_sigmas,
    split_sigmas_denoise,
)

SIGMAS = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("start", "end", "force_last_zero", "expected"),
    [
        (0, 10000, True, [4, 3, 2, 1, 0]),
        (0, None, False, [4, 3, 2, 1, 0]),
        (0, 4, True, [4, 3, 2, 1, 0]),
        (0, 2, False, [4, 3, 2]),
        (0, 2, True, [4, 3, 0]),
        (2, 10000, False, [2, 1, 0]),
        (1, 3, True, [3, 2, 0]),
        (4, 10000, False, []),
        (9, 10000, False, []),
        (3, 2, False, []),
        (0, 0, True, []),
    ],
)
def test_slices_of_a_schedule(start: int, end: int | None, force_last_zero: bool, expected: list[float]) -> None:
    assert torch.equal(slice_sigmas(SIGMAS, start, end, force_last_zero), torch.tensor(expected, dtype=torch.float32))
    assert SIGMAS[2].item() == 2.0


def test_nothing_is_left_of_an_empty_schedule() -> None:
    assert len(slice_sigmas(torch.empty(0), 0, 10000, True)) == 0


def test_splits_share_the_level_between_them() -> None:
    high, low = split_sigmas(SIGMAS, 1)
    assert (high.tolist(), low.tolist()) == ([4, 3], [3, 2, 1, 0])  # pyright: ignore[reportUnknownMemberType]  # torch types it bare
    high, low = split_sigmas_denoise(SIGMAS, 0.5)
    assert (high.tolist(), low.tolist()) == ([4, 3, 2], [2, 1, 0])  # pyright: ignore[reportUnknownMemberType]  # torch types it bare
    high, low = split_sigmas_denoise(SIGMAS, 0.0)
    assert (high.tolist(), low.tolist()) == ([], [0])  # pyright: ignore[reportUnknownMemberType]  # torch types it bare


def test_flipped_levels_start_where_a_step_can() -> None:
    torch.testing.assert_close(flip_sigmas(SIGMAS), torch.tensor([0.0001, 1, 2, 3, 4]))
    torch.testing.assert_close(flip_sigmas(SIGMAS[:-1]), torch.tensor([1.0, 2, 3, 4]))
    assert len(flip_sigmas(SIGMAS[:0])) == 0


def test_another_first_level() -> None:
    assert torch.equal(set_first_sigma(SIGMAS, 9.0), torch.tensor([9.0, 3, 2, 1, 0]))
    assert len(set_first_sigma(SIGMAS[:0], 9.0)) == 0
    assert SIGMAS[0].item() == 4.0


@pytest.mark.parametrize(
    ("spacing", "shares"),
    [
        ("linear", (0.25, 0.5, 0.75)),
        ("cosine", (math.sin(math.pi / 8), math.sqrt(0.5), math.sin(3 * math.pi / 8))),
        ("sine", (1 - math.cos(math.pi / 8), 1 - math.sqrt(0.5), 1 - math.cos(3 * math.pi / 8))),
    ],
)
def test_steps_within_a_range_of_levels_are_divided(spacing: Spacing, shares: tuple[float, ...]) -> None:
    extended = extend_sigmas(SIGMAS, 4, start=3.5, end=2.0, spacing=spacing)
    expected = [4, 3, *(3 - share for share in shares), 2, *(2 - share for share in shares), 1, 0]
    torch.testing.assert_close(extended, torch.tensor(expected, dtype=torch.float32))


def test_a_step_divided_by_one_stays() -> None:
    assert torch.equal(extend_sigmas(SIGMAS, 1, math.inf, 0.0, "sine"), SIGMAS)
