from pathlib import Path

import pytest

from tests.commands import latentloom


def test_the_engine_is_timed_on_three_shapes(tmp_path: Path):
    said = latentloom("bench", "engine", "--sizes", "1,7", data=tmp_path)
    assert said.code == 0
    assert [line.split()[0] for line in said.out.splitlines() if line[-1:].isdigit()] == [
        shape for shape in ("chain", "wide", "lattice") for _ in range(2)
    ]


def test_the_queue_is_timed_beside_other_jobs(tmp_path: Path):
    jobs = tmp_path / "jobs.sqlite3"
    asked = ("bench", "queue", "--over", "30", "--waiting", "20", "--repeats", "2", "--database", f"sqlite:///{jobs}")
    said = latentloom(*asked, data=tmp_path)
    assert said.code == 0
    assert "beside 30 jobs that are over and 20 that wait" in said.out
    assert "jobs/s, committed" in said.out
    again = latentloom(*asked, data=tmp_path)
    assert again.code == 1 and "has jobs in it" in again.err


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("engine", "--sizes", "abc"), "10,1000"),
        (("engine", "--sizes", "0,10"), "numbers from 1"),
        (("start", "--repeats", "0"), "not in the range"),
        (("sampling", "--repeats", "0"), "not in the range"),
        (("sampling", "--size", "128,8"), "64 pixels a side or more"),
        (("sampling", "--batch", "0"), "numbers from 1"),
        (("memory", "--steps", "0"), "not in the range"),
        (("sampling", "--checkpoint", "lomlet"), "did you mean 'loomlet'?"),
        (("resume", "--kills", "0"), "not in the range"),
        (("model", "--count", "0"), "not in the range"),
        (("queue", "--repeats", "0"), "not in the range"),
    ],
)
def test_what_cannot_be_measured_is_explained(tmp_path: Path, words: tuple[str, ...], answer: str):
    said = latentloom("bench", *words, data=tmp_path)
    assert said.code == 2 and answer in said.err and "Traceback" not in said.err
