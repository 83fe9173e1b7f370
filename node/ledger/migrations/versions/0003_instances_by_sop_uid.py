"""Instances are looked for by SOP Instance UID, too: the same one may come in two studies."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_instances_sop_uid", "instances", ["sop_uid"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_instances_sop_uid", "instances")
