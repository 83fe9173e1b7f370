"""The ledger's tables from version to version (Alembic). A version that was released is never edited."""
