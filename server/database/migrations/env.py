"""What Alembic runs: the migrations, in the transaction of whoever asked for them (`server/database/migrate.py`)."""

from alembic import context

from server.database.migrate import REVISION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=REVISION_TABLE)
with context.begin_transaction():
    context.run_migrations()
