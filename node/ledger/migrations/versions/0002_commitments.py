"""Storage commitment: what a destination was asked to keep, and what it has said."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "commitments",
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("delivery_id", NUMBER, nullable=False),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("reported_at", sa.Double(), nullable=True),
        sa.Column("held", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name="fk_commitments_delivery_id"),
        sa.PrimaryKeyConstraint("transaction_uid", name="pk_commitments"),
    )
    op.create_index("ix_commitments_delivery_id", "commitments", ["delivery_id"], unique=False)


def downgrade() -> None:
    op.drop_table("commitments")
