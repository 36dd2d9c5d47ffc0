"""Alembic's entry: `govor.database.migrate` gives it a connection that holds the lock."""

from alembic import context

from govor.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # SQLite's DDL is transactional once the driver leaves BEGIN to us
)
with context.begin_transaction():
    context.run_migrations()
