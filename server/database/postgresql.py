"""PostgreSQL: a pool of connections to a server."""

from sqlalchemy.engine import URL, Connection
from sqlalchemy.event import listen
from sqlalchemy.ext.asyncio import create_async_engine

from server.database.engines import Engines
from server.database.errors import DatabaseUnusable

CONNECT_SECONDS = 10


def engines_for_postgresql(url: URL) -> Engines:
    """Readers and writers out of one pool. Raises DatabaseUnusable where the driver is missing."""
    try:
        # The ping costs little beside a commit, and a server that was restarted is not noticed by anybody.
        write = create_async_engine(url, pool_pre_ping=True, connect_args={"timeout": CONNECT_SECONDS})
    except ImportError as error:
        why = f"the library {error.name} is missing (pip install 'latentloom[postgresql]')"
        raise DatabaseUnusable(url.render_as_string(), why) from error
    listen(write.sync_engine, "begin", _begin)
    return Engines(write.execution_options(isolation_level="AUTOCOMMIT"), write, write.execution_options(durable=False))


def _begin(connection: Connection) -> None:
    if not connection.get_execution_options().get("durable", True):
        connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
