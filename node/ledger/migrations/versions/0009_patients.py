"""Studies are found by whose they are: what changed since an earlier one is said beside what was found."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_studies_patient_key", "studies", ["patient_key"])


def downgrade() -> None:
    op.drop_index("ix_studies_patient_key", table_name="studies")
