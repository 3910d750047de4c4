"""Processes that use one queue, and write down what they did: `python -m tests.queue_workers ROLE URL NAME`.

What is printed is printed after it has happened, so a process that is killed may have done one thing more.
"""

import asyncio
import sys

from server.database.database import Database
from server.database.documents import Document
from server.database.job_history import JobHistory
from server.database.job_queue import JobQueue
from server.database.jobs import NewJob, Outcome

WORKFLOW = Document.of({})


async def work(database: Database, name: str) -> None:
    """Claim jobs and finish them until all are over, and standard input is: more may come as long as it is open."""
    queue, history = JobQueue(database), JobHistory(database)
    no_more = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    while not no_more.done() or (await history.counts()).unfinished:
        claim = await queue.claim(name)
        if claim is None:
            await asyncio.sleep(0.01)
            continue
        print("claimed", claim.job.id, flush=True)
        await queue.heartbeat(claim.lease)
        await queue.finish(claim.lease, Outcome(state="done", outputs=Document.of({"by": name})))
        print("finished", claim.job.id, flush=True)


async def hold(database: Database, name: str) -> None:
    """Claim a job and never be heard of again."""
    claim = await JobQueue(database).claim(name)
    assert claim is not None
    print("claimed", claim.job.id, flush=True)
    await asyncio.Event().wait()


async def submit(database: Database, name: str) -> None:
    """Submit jobs without an end, several at once."""
    queue = JobQueue(database)

    async def one_after_another() -> None:
        while True:
            (accepted,) = await queue.submit([NewJob(workflow=WORKFLOW)])
            print("accepted", accepted.id, flush=True)

    await asyncio.gather(*(one_after_another() for _ in range(5)))


async def main(role: str, url: str, name: str) -> None:
    database = await Database.open(url)
    print("ready", name, flush=True)
    await {"work": work, "hold": hold, "submit": submit}[role](database, name)
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
