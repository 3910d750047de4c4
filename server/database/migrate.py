"""Bring the tables up to date. Alembic, which takes a while to import, is asked only when there is something to do."""

from pathlib import Path

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from server.database.errors import DatabaseUnusable

NEWEST = "0002"
"""The revision that this code is written for: the last one in `migrations/versions`."""
REVISION_TABLE = "latentloom_revision"
MIGRATIONS = Path(__file__).parent / "migrations"
# Any number does that nobody else in the same PostgreSQL database uses for its advisory locks.
MIGRATION_LOCK = 0x1A7E_7100


def is_up_to_date(connection: Connection) -> bool:
    return _revision(connection) == NEWEST


def bring_up_to_date(connection: Connection, where: str) -> None:
    """Run the migrations that are missing, all of them or none, while nobody else does.

    Raises:
        DatabaseUnusable: the tables are those of a newer version, or of another program.
    """
    if connection.dialect.name == "postgresql":  # a transaction in SQLite has the file for itself anyway
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
    found = _revision(connection)
    if found == NEWEST:  # another process was faster
        return

    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        why = f"a newer version of Latentloom has changed it (to revision {found}; this one knows {NEWEST})"
        raise DatabaseUnusable(where, f"{why}. Upgrade Latentloom, or use another data folder")
    try:
        command.upgrade(config, "head")
    except SQLAlchemyError as error:
        raise DatabaseUnusable(where, f"its tables could not be brought up to date: {error}") from error


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(REVISION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {REVISION_TABLE}")).scalar()
