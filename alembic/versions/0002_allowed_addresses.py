"""Where an account's requests may come from."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("account", sa.Column("allowed_addresses", postgresql.ARRAY(postgresql.CIDR()), nullable=True))


def downgrade() -> None:
    op.drop_column("account", "allowed_addresses")
