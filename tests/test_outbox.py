import asyncio

import pytest

from server.web.outbox import MOST_WAITING, Frame, Outbox, TooSlow


def sent(outbox: Outbox, count: int) -> list[str | bytes]:
    """The next frames that a client gets."""

    async def take() -> list[str | bytes]:
        frames: list[Frame] = []
        while len(frames) < count:
            frames += await asyncio.wait_for(outbox.take(), 10)
        return [frame.content for frame in frames]

    return asyncio.run(take())


def test_frames_leave_in_order():
    outbox = Outbox()
    for text in ("a", "b", "c"):
        outbox.put(Frame(text))
    assert sent(outbox, 3) == ["a", "b", "c"]


def test_a_later_frame_takes_the_place_of_one_that_waits():
    outbox = Outbox()
    for text in ("1 of 3", "2 of 3", "3 of 3"):
        outbox.put(Frame(text, replaces="progress"))
    outbox.put(Frame("done"))
    assert sent(outbox, 2) == ["3 of 3", "done"]


def test_pictures_and_progress_go_first_when_a_client_is_slow():
    outbox = Outbox()
    for at in range(MOST_WAITING):
        outbox.put(Frame(str(at), replaces=at))
    outbox.put(Frame("must be told"))
    assert sent(outbox, 1) == ["must be told"]


def test_a_client_that_lags_too_far_behind_is_cut_off():
    outbox = Outbox()
    for at in range(MOST_WAITING + 1):
        outbox.put(Frame(str(at)))
    outbox.put(Frame("later"))
    with pytest.raises(TooSlow):
        sent(outbox, 1)


def test_a_frame_is_waited_for():
    async def late() -> str | bytes:
        outbox = Outbox()
        asyncio.get_running_loop().call_soon(outbox.put, Frame("late"))
        (frame,) = await asyncio.wait_for(outbox.take(), 10)
        return frame.content

    assert asyncio.run(late()) == "late"


@pytest.mark.parametrize(("size", "head"), [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)])
def test_a_frame_says_its_kind_and_its_size(size: int, head: int):
    text, binary = Frame("é" * (size // 2) + "x" * (size % 2)).wire, Frame(bytes(size)).wire
    assert (text[0], binary[0]) == (0x81, 0x82)
    assert len(text) == len(binary) == head + size and text[1] < 128
