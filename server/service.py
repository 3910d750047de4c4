"""A whole server: database, workers, lanes and site, from its start to its end. Nothing here imports torch."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from graph.collector import collector_paused
from server.database.api_keys import ApiKeys
from server.database.database import Database
from server.database.engines import USUAL_FILE
from server.database.event_log import EventLog
from server.database.job_history import JobHistory
from server.database.job_queue import JobQueue
from server.database.webhooks import Webhooks
from server.instance import take_instance
from server.web.access import Door
from server.web.application import make_application
from server.web.desk import Desk, prepare
from server.web.dispatcher import Dispatcher
from server.web.files.owner_folders import LOCAL, OwnerFolders
from server.web.frontend import Frontend
from server.web.hub import Hub
from server.web.journal import Journal
from server.web.library import Library, Shelf
from server.web.lock import lock
from server.web.log_buffer import LogBuffer
from server.web.messenger import Messenger
from server.web.metrics import Metrics
from server.web.options import WebOptions
from server.web.routes import frontend, home, jobs, operations, prompts, queue, websocket
from server.web.routes.node_info import EncodedNodes
from server.web.signatures import kept_secret
from server.web.site import Site
from server.workers.descriptions import Descriptions
from server.workers.options import PoolOptions, WorkerOptions
from server.workers.pool import WorkerPool
from workflows.documents import EXAMPLES

log = logging.getLogger("latentloom.server")

WARM_UP_AFTER = 0.3
"""Seconds after the start."""

ROUTES = (*operations.ROUTES, *prompts.ROUTES, *queue.ROUTES, *jobs.ROUTES, *websocket.ROUTES)


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """What a server is told at its start.

    Args:
        database: a file or a URL; by default a file in the data folder.
        previews: whether workers draw pictures of work in progress.
        frontend: the graph editor that is served at `/`; none: this server's own page.
        arguments: what `/system_stats` tells of the command line.
    """

    data: Path
    web: WebOptions = field(default_factory=WebOptions)
    database: Path | str | None = None
    pool: PoolOptions = field(default_factory=PoolOptions)
    previews: bool = False
    frontend: Frontend | None = None
    most_unfinished: int | None = None
    arguments: Sequence[str] = ("latentloom", "serve")

    def folders(self) -> OwnerFolders:
        """Where files are."""
        return self.web.folders(self.data, EXAMPLES / "input")


@dataclass(frozen=True, slots=True)
class Service:
    """A server that runs, and the site by which it can be reached."""

    application: web.Application
    desk: Desk


@asynccontextmanager
async def running(options: ServiceOptions) -> AsyncGenerator[Service]:
    """A server: it runs jobs from here on, and hands back those that are not done at the end.

    Raises:
        Unlocked: others could come in, and there is no key.
        DatabaseError, OSError, ValueError
    """
    folders = options.folders()
    async with AsyncExitStack() as stack:
        instance = await asyncio.to_thread(take_instance, options.data)
        stack.callback(instance.close)
        database = await Database.open(options.database or options.data / USUAL_FILE)
        stack.push_async_callback(database.close)
        keys = ApiKeys(database)
        door = lock(options.web, keys, await keys.any_valid())
        pool = await stack.enter_async_context(WorkerPool(options.pool))
        secret = options.web.webhook_secret or await asyncio.to_thread(kept_secret, options.data)
        desk = _desk(instance.name, database, pool, options, folders, secret)
        await desk.dispatcher.start()
        buffer = LogBuffer()
        logger = logging.getLogger("latentloom")
        logger.addHandler(buffer)
        stack.callback(logger.removeHandler, buffer)
        site = _site(options, folders, door, desk, buffer)
        services: dict[type, Any] = {Desk: desk, EncodedNodes: EncodedNodes(), Metrics: desk.dispatcher.metrics}
        if options.frontend is not None:
            services[Frontend] = options.frontend
        front = home.ROUTES if options.frontend is None else (*home.OVERVIEW, *frontend.ROUTES)
        application = make_application(site, (*front, *ROUTES), services)
        telling = asyncio.create_task(desk.messenger.work())
        application.on_shutdown.append(lambda _: desk.say_goodbye())
        # The nodes are loaded when the server answers, but before the first job needs them.
        warming = asyncio.get_running_loop().call_later(WARM_UP_AFTER, lambda: desk.begin(_warm_up(desk)))
        stack.callback(warming.cancel)
        try:
            yield Service(application, desk)
        finally:
            desk.dispatcher.stop()
            await pool.close()
            await desk.dispatcher.finish()
            desk.messenger.stop()
            await asyncio.gather(telling, return_exceptions=True)
            desk.hub.close()


def _desk(
    name: str, database: Database, pool: WorkerPool, options: ServiceOptions, folders: OwnerFolders, secret: str
) -> Desk:
    queue, history, events = JobQueue(database), JobHistory(database), EventLog(database)

    async def unfinished(owner: str) -> int:
        return (await history.counts(owner)).unfinished

    hub = Hub(unfinished)
    journal = Journal(events, hub.written)
    worker: WorkerOptions = options.pool.worker
    library = Library(lambda: _shelf(folders, worker), Descriptions(worker).identity)
    webhooks = Webhooks(database)
    messenger = Messenger(
        webhooks=webhooks, history=history, secret=secret, allow_private=options.web.allow_private_webhooks
    )
    dispatcher = Dispatcher(
        name=name,
        queue=queue,
        history=history,
        journal=journal,
        hub=hub,
        workers=pool,
        prepare=partial(prepare, library, previews=options.previews),
        lanes=len(options.pool.devices),
        on_end=messenger.wake,
    )
    return Desk(
        queue=queue,
        history=history,
        events=events,
        journal=journal,
        hub=hub,
        dispatcher=dispatcher,
        library=library,
        pool=pool,
        webhooks=webhooks,
        messenger=messenger,
        most_unfinished=options.most_unfinished,
    )


def _shelf(folders: OwnerFolders, worker: WorkerOptions) -> Shelf:
    with collector_paused():
        from nodes.engine import full_catalogue

        return Shelf(full_catalogue(folders, worker.own_nodes), folders)


def _site(options: ServiceOptions, folders: OwnerFolders, door: Door, desk: Desk, buffer: LogBuffer) -> Site:
    async def nodes() -> dict[str, Any]:
        description = await desk.pool.describe()
        return await asyncio.to_thread(lambda: description.nodes)

    async def own_nodes(described: Mapping[str, Any], owner: str) -> Mapping[str, Any]:
        # Workers describe what is in the usual folders.
        if owner == LOCAL and options.web.input_directory is None:
            return described
        shelf = (await desk.library.shelf()).of(owner)
        return await asyncio.to_thread(shelf.with_own_choices, dict(described))

    async def devices() -> list[dict[str, Any]]:
        return [asdict(device) for device in await desk.pool.devices()]

    return Site(
        folders=folders,
        door=door,
        origins=options.web.origins,
        limits=options.web.limits,
        describe_nodes=nodes,
        describe_to=own_nodes,
        device_stats=devices,
        extensions=(frontend.SCRIPT,) if options.frontend else (),
        arguments=options.arguments,
        log=buffer,
        compress=options.web.enable_compress_response_body,
    )


async def _warm_up(desk: Desk) -> None:
    try:
        await desk.library.shelf()
    except Exception as error:
        log.error("the nodes cannot be loaded: %s", error)
