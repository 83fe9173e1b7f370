"""What an administrator orders: workers that take nothing more, evidence that is sent once more."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "drained",
        sa.Column("worker", sa.String(length=255), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("worker", name="pk_drained"),
    )
    op.add_column("deliveries", sa.Column("whole_since", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("deliveries", "whole_since")
    op.drop_table("drained")
