"""`latentloom cache`: what is kept on disk, and clearing it."""

import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from server.quantities import AGE, SIZE, duration_text, size_text
from server.settings import Settings

if TYPE_CHECKING:
    from graph.store_keeper import StoreKeeper
    from nodes.prepared_networks import PreparedNetworks

SHOWN = 20


@click.group(invoke_without_command=True, epilog="Example: latentloom cache clear --older-than 7d")
@click.pass_context
def cache(context: click.Context) -> None:
    """Show which results are kept on disk for later runs, by class of node, those with the most bytes first.

    And how much networks take that are kept as this machine computes with them.
    """
    if context.invoked_subcommand is None:
        settings = context.find_object(Settings) or Settings()
        with _keeper(settings) as keeper:
            if keeper is not None:
                _show(keeper)
        _show_networks(_networks(settings))


@cache.command(
    epilog="""\b
Examples:
  latentloom cache clear --older-than 7d
  latentloom cache clear --class VAEDecode --larger-than 100MB
  latentloom cache clear --all"""
)
@click.option("--older-than", type=AGE, metavar="AGE", help="Only what was not used for so long: 7d, 12h, 30min.")
@click.option("--class", "class_name", metavar="NAME", help="Only results of this class of node.")
@click.option("--larger-than", type=SIZE, metavar="SIZE", help="Only entries above this size: 100MB.")
@click.option("--all", "everything", is_flag=True, help="Everything.")
@click.pass_obj
def clear(
    settings: Settings, older_than: int | None, class_name: str | None, larger_than: int | None, everything: bool
) -> None:
    """Remove results and prepared networks from the disk. Conditions add up: what goes fulfils all of them.

    What a prepared network was made of stays; it is prepared again when it is next needed.
    """
    if everything == any(given is not None for given in (older_than, class_name, larger_than)):
        raise click.UsageError("say what is to go: --older-than, --class or --larger-than, or else --all")
    before = None if older_than is None else time.time() - older_than
    if class_name is None:
        count, nbytes = _networks(settings).clear(larger_than, before)
        if count:
            click.echo(f"removed {_counted(count)}, {size_text(nbytes)}")
    with _keeper(settings) as keeper:
        if keeper is None:
            return
        keeper.reconcile_all()
        if class_name is not None and class_name not in (known := [kept.class_name for kept in keeper.by_class()]):
            raise click.UsageError(f"no result of a node {class_name!r} is kept; there are: {', '.join(known) or '-'}")
        count, nbytes = keeper.clear(class_name, larger_than, before)
        click.echo(f"removed {count} {'entry' if count == 1 else 'entries'}, {size_text(nbytes)}")


@contextmanager
def _keeper(settings: Settings) -> "Generator[StoreKeeper | None]":
    """The keeper of the store, or None, and a word about it, where nothing was ever kept."""
    from graph.store_folder import StoreFolder
    from graph.store_keeper import StoreKeeper

    settings.log_to_stderr()
    folder = StoreFolder(settings.folders().store)
    if not folder.root.exists():
        click.echo(f"nothing is kept yet ({folder.root})")
        yield None
        return
    keeper = StoreKeeper(folder, max_bytes=0)
    try:
        yield keeper
    except (OSError, sqlite3.Error) as error:
        raise click.ClickException(f"the store cannot be used: {error} ({folder.root})") from error
    finally:
        keeper.close()


def _show(keeper: "StoreKeeper") -> None:
    totals, classes = keeper.totals(), keeper.by_class()
    asked = totals.hits + totals.misses
    rate = "not asked yet" if totals.hit_rate is None else f"{totals.hit_rate:.0%} of {asked} look-ups found"
    click.echo(f"{size_text(totals.bytes)} in {totals.entries} entries, {rate}, {totals.evictions} made way for others")
    click.echo(str(keeper.folder.root))
    if not classes:
        return
    width = max(5, *(len(kept.class_name) for kept in classes[:SHOWN]))
    click.echo(f"\n{'class':<{width}}{'size':>11}{'entries':>9}{'largest':>11}{'uses':>7}{'took':>10}")
    for kept in classes[:SHOWN]:
        click.echo(
            f"{kept.class_name:<{width}}{size_text(kept.bytes):>11}{kept.entries:>9}{size_text(kept.largest):>11}"
            f"{kept.hits:>7}{duration_text(kept.seconds):>10}"
        )
    if len(classes) > SHOWN:
        click.echo(f"… and {len(classes) - SHOWN} more")


def _networks(settings: Settings) -> "PreparedNetworks":
    from nodes.prepared_networks import PreparedNetworks

    return PreparedNetworks(settings.folders().prepared)


def _show_networks(prepared: "PreparedNetworks") -> None:
    sizes = [status.st_size for _, status in prepared.files()]
    if sizes:
        click.echo(f"\n{size_text(sum(sizes))} in {_counted(len(sizes))}\n{prepared.folder}")


def _counted(networks: int) -> str:
    return f"{networks} prepared {'network' if networks == 1 else 'networks'}"
