"""What a switch's legs mean, and what its trunk wants."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("switch_user", sa.Column("rejected", sa.Text(), server_default="busy", nullable=False))
    op.add_column("switch_user", sa.Column("redirected", sa.Text(), server_default="failed", nullable=False))
    op.add_column(
        "switch_user", sa.Column("early_media", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column("switch_user", sa.Column("trunk", postgresql.JSONB(), nullable=True))
    op.create_check_constraint("rejected", "switch_user", "rejected IN ('busy', 'failed')")
    op.create_check_constraint("redirected", "switch_user", "redirected IN ('failed', 'caller')")


def downgrade() -> None:
    for column in ("trunk", "early_media", "redirected", "rejected"):
        op.drop_column("switch_user", column)
