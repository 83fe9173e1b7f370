"""Run the migrations on the connection, and in the transaction, that ``Database.upgrade`` gives."""

from __future__ import annotations

from alembic import context

from node.ledger.tables import tables

context.configure(connection=context.config.attributes["connection"], target_metadata=tables)
context.run_migrations()
