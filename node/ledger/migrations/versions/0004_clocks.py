"""The ledger's own time, per boot of each machine: leases and settle times do not follow a clock that is set."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "clocks",
        sa.Column("boot", sa.String(length=128), nullable=False),
        sa.Column("since_boot", sa.Double(), nullable=False),
        sa.Column("told", sa.Double(), nullable=False),
        sa.Column("wall", sa.Double(), nullable=False),
        sa.Column("rate", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("boot", name="pk_clocks"),
    )


def downgrade() -> None:
    op.drop_table("clocks")
