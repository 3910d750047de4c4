"""`latentloom serve`: take workflows over HTTP, queue them, and have them run."""

import asyncio
import gc
import logging
import math
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.logs import FORMATS, log_to_stderr
from server.options import PRECISIONS, allow_pickle, prepared_bytes
from server.quantities import SIZE
from server.settings import Settings, WrongRequest

if TYPE_CHECKING:
    from ssl import SSLContext

    from aiohttp.web import AppRunner

    from nodes.precision import PrecisionChoice
    from server.service import ServiceOptions
    from server.web.options import WebOptions

PORT = 8188
USUAL_JOBS = 10_000
ANYWHERE = "0.0.0.0,::"
SWITCH_SECONDS = 0.001
SETTLED_SECONDS = 3.0
"""After which the nodes are loaded, and whatever else the first requests need."""
GRACE_SECONDS = 5.0
"""For how long answers that are on their way may take at the end."""

TAKEN = frozenset(
    {"cpu", "cuda-device", "force-fp32", "force-fp16", "fp16-unet", "bf16-unet", "cache-none", "dont-print-server"}
    | {"preview-method", "preview-size", "verbose", "database-url", "front-end-root"}
)
"""Of the flags that mean nothing to a site, those that mean something to a server."""
MOST_VALUES: Mapping[str, float] = {"none": 0, "one": 1, "maybe": 1, "many": math.inf}


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="""\b
Examples:
  latentloom serve
  latentloom serve --port 8000 --devices cuda:0,cuda:1
  latentloom keys add laptop && latentloom serve --listen

Flags of ComfyUI's server are accepted; those that mean nothing here are named in one warning.""",
)
@click.option(
    "--listen",
    "--host",
    "host",
    is_flag=False,
    flag_value=ANYWHERE,
    default="127.0.0.1",
    show_default=True,
    metavar="[ADDRESSES]",
    help="Addresses to be reached at, separated by commas; all without a value.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0: any that is free.")
@click.option(
    "--frontend",
    type=click.Choice(("own", "comfyui")),
    default="own",
    show_default=True,
    help='What is at /: a page with the queue, or ComfyUI\'s graph editor (pip install "latentloom[comfyui]").',
)
@click.option(
    "--front-end-root",
    "front_end",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A folder with a graph editor to be at / instead.",
)
@click.option(
    "--workers",
    default="auto",
    show_default=True,
    metavar="N|auto",
    help="How many worker processes; auto: one for each device.",
)
@click.option(
    "--devices",
    "--cuda-device",
    "devices",
    default="auto",
    show_default=True,
    metavar="LIST",
    help="What they run on, separated by commas: cpu, cuda:0, cuda:1 …",
)
@click.option("--cpu", is_flag=True, help="The same as --devices cpu.")
@click.option(
    "--base-directory",
    "base",
    type=click.Path(path_type=Path, file_okay=False),
    help="The data folder, as --data before the command.",
)
@click.option(
    "--database",
    "--database-url",
    "database",
    envvar="LATENTLOOM_DATABASE",
    metavar="FILE|URL",
    help="Where jobs are kept: postgresql+asyncpg://user:password@host/name; a file in the data folder if left out.",
)
@click.option("--output-directory", "output", type=click.Path(path_type=Path, file_okay=False))
@click.option("--input-directory", "inputs", type=click.Path(path_type=Path, file_okay=False))
@click.option("--temp-directory", "temp", type=click.Path(path_type=Path, file_okay=False))
@click.option("--user-directory", "users", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--preview-method",
    type=click.Choice(("none", "auto", "latent2rgb", "taesd")),
    default="auto",
    show_default=True,
    help="Whether pictures of work in progress are drawn.",
)
@click.option(
    "--preview-size", type=click.IntRange(16, 4096), default=512, show_default=True, help="Their longer side."
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="The number format of the denoising network.",
)
@click.option("--force-fp32", "fp32", is_flag=True, help="The same as --precision fp32.")
@click.option("--force-fp16", "--fp16-unet", "fp16", is_flag=True, help="The same as --precision fp16.")
@click.option("--bf16-unet", "bf16", is_flag=True, help="The same as --precision bf16.")
@allow_pickle
@click.option(
    "--store",
    type=click.Choice(("disk", "memory", "none")),
    default="disk",
    show_default=True,
    help="Where results are kept.",
)
@click.option("--cache-none", is_flag=True, help="The same as --store none.")
@click.option("--store-bytes", type=SIZE, help="How much the store may hold: 500MB, 20GiB.")
@prepared_bytes
@click.option("--recycle-jobs", type=click.IntRange(1), metavar="N", help="Replace a worker after so many jobs.")
@click.option("--recycle-memory", type=SIZE, metavar="SIZE", help="Replace a worker that holds more memory than this.")
@click.option(
    "--most-jobs",
    type=click.IntRange(1),
    metavar="N",
    help=f"How many jobs an owner may have waiting and running; if left out, {USUAL_JOBS:,} where other machines can "
    "come in, and any number where they cannot.",
)
@click.option(
    "--max-upload-size",
    type=click.FloatRange(0.001),
    default=100,
    show_default=True,
    metavar="MB",
    help="The largest body of a request.",
)
@click.option(
    "--enable-cors-header",
    "origins",
    is_flag=False,
    flag_value="*",
    multiple=True,
    metavar="[ORIGIN]",
    help="Other sites whose pages may use this server; all without a value.",
)
@click.option("--allowed-host", "names", multiple=True, metavar="NAME", help="A name that this server goes by.")
@click.option(
    "--api-key",
    "keys",
    multiple=True,
    envvar="LATENTLOOM_API_KEYS",
    metavar="[OWNER=]KEY",
    help="A key to ask for beside those of `latentloom keys`. Can be given several times.",
)
@click.option("--insecure-no-auth", is_flag=True, help="Ask for no keys, also not when other machines can come in.")
@click.option(
    "--webhook-secret",
    envvar="LATENTLOOM_WEBHOOK_SECRET",
    metavar="SECRET",
    help="Signs what webhooks are told; if left out, the one in the data folder's webhook_secret.",
)
@click.option(
    "--allow-private-webhooks",
    is_flag=True,
    help="Let whoever submits jobs have webhooks sent to this machine and to private networks.",
)
@click.option(
    "--requests-per-second", type=click.FloatRange(0), metavar="N", help="Of one client; 0: as many as it likes."
)
@click.option("--tls-certfile", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--tls-keyfile", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--enable-compress-response-body", "compress", is_flag=True, help="Compress answers in text.")
@click.option("--dont-print-server", "quiet", is_flag=True, help="Print warnings only.")
@click.option(
    "--verbose",
    "log_level",
    is_flag=False,
    flag_value="DEBUG",
    metavar="[LEVEL]",
    type=click.Choice(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), case_sensitive=False),
    help="What is logged.",
)
@click.option(
    "--log-format", type=click.Choice(FORMATS), default="text", show_default=True, help="json: an object on each line."
)
@click.argument("others", nargs=-1, type=click.UNPROCESSED, metavar="")
@click.pass_obj
def serve(settings: Settings, **given: Any) -> None:
    """Take workflows over HTTP, as ComfyUI does, queue them, and have them run by worker processes."""
    options = _Given(settings, given)
    level = given["log_level"] or ("DEBUG" if settings.verbosity else "WARNING" if given["quiet"] else "INFO")
    # A line for each request is for those who want it.
    log_to_stderr(level.upper(), given["log_format"], requests=given["log_level"] is not None)
    options.warn_of_others()
    try:
        asyncio.run(_serve(options))
    except KeyboardInterrupt:
        sys.exit(130)


class _Given:
    """What the command line says, in the words of the service."""

    def __init__(self, settings: Settings, given: Mapping[str, Any]) -> None:
        self.settings = settings
        # Workers are to find the same folders, wherever they are started.
        self.given: dict[str, Any] = {
            name: value.absolute() if isinstance(value, Path) else value for name, value in given.items()
        }
        self.hosts = tuple(host.strip() for host in given["host"].split(",") if host.strip())
        self.quiet: bool = given["quiet"]

    @property
    def data(self) -> Path:
        from graph.folders import default_data_folder

        return (self.given["base"] or self.settings.data or default_data_folder()).absolute()

    def warn_of_others(self) -> None:
        """Name flags that mean nothing here, once. Refuses what is no flag of anybody."""
        from server.web.foreign_flags import FLAGS

        known = {flag.name: MOST_VALUES[flag.values] for flag in FLAGS if flag.name not in TAKEN}
        passed, left = list[str](), list(self.given["others"])
        while left:
            flag, _, value = left.pop(0).partition("=")
            count = known.get(flag.removeprefix("--")) if flag.startswith("--") else None
            if count is None:
                raise click.UsageError(f"there is no option {flag!r}; see latentloom serve --help")
            passed.append(flag)
            taken = 0 if not value else 1
            while left and not left[0].startswith("--") and taken < count:
                left.pop(0)
                taken += 1
        if passed:
            click.echo(f"Warning: these mean nothing here and are passed over: {', '.join(passed)}", err=True)

    def web(self) -> "WebOptions":
        """What the site is told."""
        from pydantic import ValidationError

        from server.web.options import WebOptions

        given = self.given
        try:
            return WebOptions(
                listen=self.hosts,
                port=given["port"],
                tls_keyfile=given["tls_keyfile"],
                tls_certfile=given["tls_certfile"],
                enable_cors_header=given["origins"],
                allowed_host=given["names"],
                max_upload_size=given["max_upload_size"],
                enable_compress_response_body=given["compress"],
                api_key=given["keys"],
                webhook_secret=given["webhook_secret"],
                allow_private_webhooks=given["allow_private_webhooks"],
                insecure_no_auth=given["insecure_no_auth"],
                requests_per_second=given["requests_per_second"],
                input_directory=given["inputs"],
                output_directory=given["output"],
                temp_directory=given["temp"],
                user_directory=given["users"],
            )
        except ValidationError as error:
            raise click.UsageError("; ".join(each["msg"] for each in error.errors())) from error

    def service(self, web: "WebOptions") -> "ServiceOptions":
        """What the server is told."""
        from nodes import pickles
        from server.database.engines import place_of
        from server.service import ServiceOptions
        from server.web.frontend import Frontend
        from server.workers.options import PoolOptions, PreviewOptions, WorkerOptions

        given = self.given
        previews = given["preview_method"] != "none"
        worker = WorkerOptions(
            data=self.data,
            output=given["output"],
            own_nodes=tuple(path.absolute() for path in self.settings.own_nodes),
            store="none" if given["cache_none"] else given["store"],
            store_bytes=given["store_bytes"],
            prepared_bytes=given["prepared_bytes"],
            precision=self._precision(),
            allow_pickle=pickles.allowed(),
            previews=PreviewOptions(side=given["preview_size"], most_per_second=10.0 if previews else 0.0),
        )
        try:
            pool = PoolOptions(
                devices=self._devices(),
                worker=worker,
                max_jobs=given["recycle_jobs"],
                max_rss=given["recycle_memory"],
            )
            frontend = Frontend.installed() if given["frontend"] == "comfyui" else None
            if given["front_end"] is not None:
                frontend = Frontend.built(given["front_end"])
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        return ServiceOptions(
            data=self.data,
            web=web,
            database=place_of(given["database"], self.data),
            pool=pool,
            previews=previews,
            frontend=frontend,
            most_unfinished=given["most_jobs"] or (None if web.is_local else USUAL_JOBS),
        )

    def _precision(self) -> "PrecisionChoice":
        given = self.given
        return "fp32" if given["fp32"] else "fp16" if given["fp16"] else "bf16" if given["bf16"] else given["precision"]

    def _devices(self) -> tuple[str, ...]:
        named = "cpu" if self.given["cpu"] else self.given["devices"]
        devices = [f"cuda:{name}" if name.isdecimal() else name for name in map(str.strip, named.split(",")) if name]
        if self.given["workers"] == "auto":
            return tuple(devices)
        try:
            count = int(self.given["workers"])
        except ValueError:
            count = 0
        if not 1 <= count <= 256:
            raise click.UsageError("--workers takes a number from 1 to 256, or auto")
        return tuple(devices[at % len(devices)] for at in range(count)) if devices else ()


async def _serve(options: _Given) -> None:
    """Serve until somebody says that it is enough."""
    from graph.collector import collector_paused

    with ExitStack() as beginning:
        beginning.enter_context(collector_paused())
        await _serve_from(options, beginning)


async def _serve_from(options: _Given, beginning: ExitStack) -> None:
    """Serve until somebody says that it is enough, and say when the beginning is over."""
    from aiohttp import web

    from server.database.errors import DatabaseError
    from server.service import running
    from server.web.access_log import AccessLog
    from server.web.lock import Unlocked

    told = options.web()
    try:
        tls = await asyncio.to_thread(told.tls)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    # Threads that compute make the event loop wait no longer than this.
    sys.setswitchinterval(SWITCH_SECONDS)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for kind in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(kind, _enough, stop)
    try:
        async with running(options.service(told)) as service:
            logger = logging.getLogger("latentloom.access")
            runner = web.AppRunner(
                service.application,
                access_log=logger,
                access_log_class=AccessLog,
                shutdown_timeout=GRACE_SECONDS,
            )
            await runner.setup()
            try:
                await _listen(runner, told, tls, options.quiet)
                beginning.close()
                # What is there by then stays. Looking through it again and again would hold everybody up.
                loop.call_later(SETTLED_SECONDS, gc.freeze)
                await stop.wait()
                service.desk.dispatcher.stop()  # also lets go of those who wait for jobs
            finally:
                await runner.cleanup()
    except Unlocked as error:
        raise WrongRequest(str(error)) from error
    except (DatabaseError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _enough(stop: asyncio.Event) -> None:
    if stop.is_set():  # asked twice: at once. Nothing is lost, as nothing is by a power cut.
        os._exit(130)
    stop.set()
    # Past Python's buffers, in the middle of whose work the signal may have come.
    os.write(2, b"stopping: jobs that run are handed back (again to stop at once)\n")


async def _listen(runner: "AppRunner", told: "WebOptions", tls: "SSLContext | None", quiet: bool) -> None:
    from aiohttp import web

    scheme = "https" if tls else "http"
    port = told.port
    for host in told.listen:
        try:
            await web.TCPSite(runner, host, port, ssl_context=tls).start()
        except OSError as error:
            raise click.ClickException(f"{host} port {port} cannot be used: {error.strerror or error}") from error
        # With port 0 the system chooses, and all addresses are to have the same.
        port = runner.addresses[0][1]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        if not quiet:
            click.echo(f"Latentloom is at {scheme}://{shown}:{port}")
