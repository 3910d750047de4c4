"""The processes that run graphs, and what the server needs to have them run jobs.

On the server's side: `pool.py` is what it uses, `slot.py` keeps one worker going for each device, `live_worker.py` is a
worker as the server sees it (`ticket.py` its job, `requests.py` what else it is asked), `process.py` its process,
`printed.py` what that prints, `deaths.py` why it ended, `errors.py` what can come of it, `descriptions.py` what nodes
there are, kept on disk. None of it imports torch, or the engine.

On the worker's side: `worker.py` is the process, `runner.py` runs jobs on the engine, `reporting.py` puts what happens
into messages, `previews.py` pictures into bytes, `failures.py` errors into sentences, `outbox.py` sends all of it
through `channel.py`; `memory.py` knows what it holds.

Between them: `messages.py` is what is said, `framing.py` how it becomes bytes, `options.py` what is told at the start,
`devices.py` how a device is given and taken.

async with WorkerPool(PoolOptions(devices=("cpu",))) as pool:
    result = await pool.run(Job.of("7", workflow), print)
"""
