"""Webhooks may be told of some endings alone."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("webhook", sa.Column("endings", sa.Text))
