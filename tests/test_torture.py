"""A hundred jobs, while the server and its workers are killed again and again."""

import os
import signal
import time
from pathlib import Path
from random import Random
from urllib.request import urlopen

from tests.programs import Program, program
from tests.workers import use

JOBS, KILLS = 100, 20
WORKFLOW = {
    "1": use("Mint"),
    "2": use("Linger", token=["1", 0]),
    "3": use("Stamp", token=["2", 0]),
    "4": use("Linger", token=["3", 0], seconds=0.02),
    "5": use("Engrave", token=["4", 0]),
}


def workers_of(server: Program) -> list[int]:
    """The worker processes of a server, as the system knows them."""
    children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    return [int(pid) for listed in children for pid in listed.read_text().split()]


def test_every_job_ends_exactly_once_however_often_everything_is_killed(tmp_path: Path):
    stamps = tmp_path / "stamps"
    stamps.mkdir()
    chance = Random(20)
    over, kills = 0, 0
    workflow = WORKFLOW | {"3": use("Stamp", token=["2", 0], folder=str(stamps))}
    batch = {"prompt": workflow, "sets": [{"Mint.number": number} for number in range(JOBS)]}
    ids: list[str] = []

    while kills < KILLS:
        with program(tmp_path, "--workers", "2") as server:
            ids = ids or [job["prompt_id"] for job in server.ask("/batch", batch)["jobs"]]
            alive = True
            while alive and kills < KILLS:
                over = server.until_over(over + chance.randint(1, 4))
                time.sleep(chance.uniform(0, 0.1))
                alive = chance.random() < 0.5
                if alive:
                    worker = chance.choice(workers_of(server) or [server.process.pid])
                    alive = worker != server.process.pid
                    os.kill(worker, signal.SIGKILL)
                else:
                    server.kill()
                kills += 1
    assert over < JOBS, "the last kill came after the last job"

    with program(tmp_path, "--workers", "2") as server:
        assert server.until_over(JOBS) == JOBS == server.count("completed")
        assert sorted(server.ask(f"/history?max_items={JOBS + 10}")) == sorted(ids)
        for number, job_id in enumerate(ids):
            ((saved,),) = [output["images"] for output in server.ask(f"/jobs/{job_id}")["outputs"].values()]
            query = "&".join(f"{name}={value}" for name, value in saved.items())
            with urlopen(f"{server.url}/view?{query}", timeout=60) as answer:
                assert answer.read() == f"{number + 1000}\n".encode() * 20_000
    stamped = [len(path.read_text().splitlines()) for path in stamps.iterdir()]
    assert len(stamped) == JOBS and sum(stamped) <= JOBS + 2 * KILLS
