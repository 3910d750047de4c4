"""Whose jobs are meant."""

from sqlalchemy import ColumnElement, true

from server.database.tables import job


def belongs(owner: str | None) -> ColumnElement[bool]:
    """Jobs of this owner, or all jobs."""
    return true() if owner is None else job.c.owner == owner
