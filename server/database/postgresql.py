"""PostgreSQL: a pool of connections to a server."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.engine import URL, Connection
from sqlalchemy.event import listen
from sqlalchemy.ext.asyncio import create_async_engine

from server.database.errors import DatabaseUnusable

CONNECT_SECONDS = 10

T = TypeVar("T")


class PostgresqlEngines:
    """Readers and writers out of one pool. Raises DatabaseUnusable where the driver is missing."""

    def __init__(self, url: URL) -> None:
        try:
            # The ping costs little beside a commit, and a server that was restarted is not noticed by anybody.
            self._write = create_async_engine(url, pool_pre_ping=True, connect_args={"timeout": CONNECT_SECONDS})
        except ImportError as error:
            why = f"the library {error.name} is missing (pip install 'latentloom[postgresql]')"
            raise DatabaseUnusable(url.render_as_string(), why) from error
        listen(self._write.sync_engine, "begin", _begin)
        self._write_soon = self._write.execution_options(durable=False)
        self._read = self._write.execution_options(isolation_level="AUTOCOMMIT")

    async def read(self, work: Callable[[Connection], T]) -> T:
        async with self._read.connect() as connection:
            return await connection.run_sync(work)

    async def write(self, work: Callable[[Connection], T], durable: bool) -> T:
        engine = self._write if durable else self._write_soon
        async with engine.begin() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        await self._write.dispose()


def _begin(connection: Connection) -> None:
    if not connection.get_execution_options().get("durable", True):
        connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
