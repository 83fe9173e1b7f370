"""What was deleted: images of a study, evidence of a job; and the files between row and disk."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("studies", sa.Column("purged_at", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("purged_at", sa.Double(), nullable=True))
    op.create_table(
        "purging",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_purging"),
    )


def downgrade() -> None:
    op.drop_table("purging")
    op.drop_column("jobs", "purged_at")
    op.drop_column("studies", "purged_at")
