"""Documents in the database: each text once, whoever needs it, for as long as somebody does."""

from collections.abc import Iterable, Mapping

from sqlalchemy import delete, exists, select, text
from sqlalchemy.engine import Connection

from server.database.chunks import chunks
from server.database.database import Collision
from server.database.documents import Document
from server.database.tables import document, job

ADD = text("INSERT INTO document (digest, text) VALUES (:digest, :text) ON CONFLICT (digest) DO NOTHING")


def store(connection: Connection, documents: Iterable[Document]) -> Mapping[str, int]:
    """Keep documents. Returns the row of each by its text."""
    # Always in the same order, so that two transactions never wait for each other.
    digests = {kept.digest(): kept.text for kept in documents}
    rows = [{"digest": digest, "text": digests[digest]} for digest in sorted(digests)]
    if rows:
        connection.execute(ADD, rows)
    found: dict[str, int] = {}
    for some in chunks(sorted(digests)):
        # The lock keeps others from deleting what no job refers to yet.
        query = select(document.c.digest, document.c.id).where(document.c.digest.in_(some)).order_by(document.c.digest)
        for digest, row in connection.execute(query.with_for_update(read=True, key_share=True)):
            found[digests[bytes(digest)]] = row
    if len(found) < len(digests):
        raise Collision  # somebody deleted one in between
    return found


def drop_unused(connection: Connection, rows: Iterable[int]) -> None:
    """Delete those of these documents that no job refers to any more."""
    for some in chunks(sorted(set(rows))):
        these = document.c.id.in_(some)
        # Two that delete the last two jobs of a document would each still see the other's; so they take turns, and the
        # second one looks when the first is through.
        connection.execute(select(document.c.id).where(these).order_by(document.c.digest).with_for_update())
        unused = ~exists().where(job.c.workflow == document.c.id), ~exists().where(job.c.extra == document.c.id)
        connection.execute(delete(document).where(these, *unused))
