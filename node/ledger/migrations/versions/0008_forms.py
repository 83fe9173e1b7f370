"""In which forms a job's evidence is made: objects say which form they are of, and a job which it was made in.

What lies there already was made in one form, which the pipeline's setting ``preset`` named; that setting is gone.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_OF_CLASS = (
    "CASE sop_class WHEN '1.2.840.10008.5.1.4.1.1.66.4' THEN 'SEG BINARY'"
    " WHEN '1.2.840.10008.5.1.4.1.1.88.34' THEN 'SR regions BINARY' ELSE 'DERIVED' END"
)
_AIR = "job_id IN (SELECT id FROM jobs WHERE preset = 'air') AND form = 'SR regions BINARY'"


def upgrade() -> None:
    op.add_column("evidence", sa.Column("form", sa.String(length=32), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("forms", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("asked", sa.JSON(), nullable=True))
    op.add_column("commitments", sa.Column("wanted", sa.JSON(), nullable=True))
    op.execute(f"UPDATE evidence SET form = {_OF_CLASS}")  # noqa: S608
    op.execute(f"UPDATE evidence SET form = 'SR references BINARY' WHERE {_AIR}")  # noqa: S608
    for preset, regions in (("ohif", "regions"), ("air", "references")):
        forms = f'["SR {regions} BINARY", "SEG BINARY", "DERIVED"]'
        op.execute(f"UPDATE jobs SET forms = '{forms}' WHERE outcome IS NOT NULL AND preset = '{preset}'")  # noqa: S608
    op.drop_column("jobs", "preset")


def downgrade() -> None:
    op.add_column("jobs", sa.Column("preset", sa.String(length=32), nullable=False, server_default="ohif"))
    op.drop_column("commitments", "wanted")
    op.drop_column("jobs", "asked")
    op.drop_column("jobs", "forms")
    op.drop_column("evidence", "form")
