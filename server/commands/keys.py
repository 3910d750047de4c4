"""`latentloom keys`: who may use the server, and for what."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from server.quantities import AGE
from server.settings import Settings, WrongRequest

if TYPE_CHECKING:
    from server.database.api_keys import ApiKey, ApiKeys, Scope

USUAL_SCOPES: "tuple[Scope, ...]" = ("submit", "read")

T = TypeVar("T")


@click.group(
    epilog="""\b
Examples:
  latentloom keys add laptop --owner ann
  latentloom keys add dashboard --owner ann --scope read
  latentloom keys revoke laptop

A server that runs on the same database knows of it at once."""
)
@click.option(
    "--database",
    "--database-url",
    "database",
    envvar="LATENTLOOM_DATABASE",
    metavar="FILE|URL",
    help="The one that the server is started with; a file in the data folder if left out.",
)
@click.pass_context
def keys(context: click.Context, database: str | None) -> None:
    """Make and revoke the keys that `latentloom serve` asks for."""
    context.obj = (context.find_object(Settings) or Settings(), database)


Told = tuple[Settings, str | None]


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(("submit", "read", "admin")),
    multiple=True,
    help="What it allows, once for each: submit work, read what is there, admin for everything. "
    "Submit and read if left out.",
)
@click.option("--owner", help="Whose jobs and files it opens; the key's name if left out. Keys may share an owner.")
@click.option("--expires-in", type=AGE, metavar="AGE", help="When it ends by itself: 12h, 90d.")
@click.pass_obj
def add(told: Told, name: str, scopes: "tuple[Scope, ...]", owner: str | None, expires_in: int | None) -> None:
    """Make a key called NAME and print it, this once: only a digest of it is kept.

    The owner `local` is the one whose jobs and files a server without keys shows.
    """

    if not name.strip():
        raise WrongRequest("a key has a name by which it can be revoked")

    async def make(known: "ApiKeys") -> None:
        if any(name in (key.id, key.name) for key in await known.all() if not _over(key)):
            raise WrongRequest(f"there is a key {name!r} already; give this one another name, or revoke that one first")
        new = await known.create(owner or name, scopes or USUAL_SCOPES, name, _end(expires_in))
        click.echo(new.text)
        allowed = ", ".join(sorted(new.key.scopes))
        click.echo(f"key {new.key.id} of {new.key.owner} ({allowed}). It is shown only now.", err=True)
        click.echo(
            "Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`, or type it in at the page /login.", err=True
        )

    _with_keys(told, make)


@keys.command("list")
@click.pass_obj
def list_keys(told: Told) -> None:
    """Show all keys there ever were, the oldest first; never the keys themselves."""
    known = _with_keys(told, lambda kept: kept.all())
    if not known:
        click.echo("there are no keys yet; make one with: latentloom keys add NAME")
        return
    head = ("id", "name", "owner", "scopes", "made", "last used", "")
    rows = [head, *map(_row, known)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


@keys.command()
@click.argument("name_or_id", metavar="NAME|ID")
@click.pass_obj
def revoke(told: Told, name_or_id: str) -> None:
    """End a key at once. What it was used for stays."""

    async def end(known: "ApiKeys") -> None:
        key = _meant(await known.all(), name_or_id)
        await known.revoke(key.id)
        click.echo(f"revoked {key.name or key.id} of {key.owner}")

    _with_keys(told, end)


def _end(seconds: int | None) -> datetime | None:
    """When a key ends that is to last for so long."""
    if seconds is None:
        return None
    try:
        return datetime.now(UTC) + timedelta(seconds=seconds)
    except OverflowError as error:
        raise WrongRequest("--expires-in leads beyond the calendar; leave it out for a key without an end") from error


def _meant(known: "Sequence[ApiKey]", name_or_id: str) -> "ApiKey":
    meant = [key for key in known if name_or_id in (key.id, key.name)]
    valid = [key for key in meant if key.revoked is None]
    match valid:
        case [key]:
            return key
        case []:
            why = "was revoked already" if meant else "is the name or id of no key; see: latentloom keys list"
            raise WrongRequest(f"{name_or_id!r} {why}")
        case _:
            ids = ", ".join(key.id for key in valid)
            raise WrongRequest(f"{len(valid)} keys are called {name_or_id!r}; say which by its id: {ids}")


def _over(key: "ApiKey") -> bool:
    return key.revoked is not None or key.expires is not None and key.expires <= datetime.now(UTC)


def _row(key: "ApiKey") -> tuple[str, ...]:
    state = f"until {_time(key.expires)}" if key.expires is not None else ""
    if key.revoked is not None:
        state = f"revoked {_time(key.revoked)}"
    elif _over(key):
        state = f"expired {_time(key.expires)}"
    used = _time(key.used) if key.used else "never"
    return (key.id, key.name, key.owner, ",".join(sorted(key.scopes)), _time(key.created), used, state)


def _time(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _with_keys(told: Told, work: "Callable[[ApiKeys], Awaitable[T]]") -> T:
    """Do something with the keys of the database that is meant."""
    from graph.folders import default_data_folder
    from server.database.api_keys import ApiKeys
    from server.database.database import Database
    from server.database.engines import place_of
    from server.database.errors import DatabaseError
    from server.database.errors import WrongRequest as NotStorable

    settings, stated = told
    data: Path = (settings.data or default_data_folder()).absolute()

    async def open_and_work() -> T:
        data.mkdir(parents=True, exist_ok=True)
        database = await Database.open(place_of(stated, data))
        try:
            return await work(ApiKeys(database))
        finally:
            await database.close()

    try:
        return asyncio.run(open_and_work())
    except NotStorable as error:
        raise WrongRequest(str(error)) from error
    except (DatabaseError, OSError) as error:
        raise click.ClickException(str(error)) from error
