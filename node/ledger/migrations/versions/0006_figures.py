"""The dashboard's figures are answered from indexes."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_studies_first_arrival": ("studies", ["first_arrival"]),
    "ix_jobs_queued_at": ("jobs", ["queued_at", "state", "pipeline"]),
    "ix_jobs_figures": (
        "jobs",
        ["done_at", "state", "queued_at", "claimed_at", "priority", "pipeline", "outcome", "owner"],
    ),
    "ix_deliveries_destination_delivered_at": ("deliveries", ["destination", "delivered_at"]),
}


def upgrade() -> None:
    for name, (table, columns) in INDEXES.items():
        op.create_index(name, table, columns, unique=False)


def downgrade() -> None:
    for name, (table, _) in INDEXES.items():
        op.drop_index(name, table)
