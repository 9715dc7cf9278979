"""Answers to repeated requests; profiles."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    _keep_answers()
    _remember_tokens()
    _add_profiles()


def downgrade() -> None:
    _drop_profiles()
    _forget_tokens()
    op.drop_table("kept_answer")


def _keep_answers() -> None:
    op.create_table(
        "kept_answer",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("kept_at", sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_kept_answer_account_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "key", name=op.f("pk_kept_answer")),
    )
    op.create_index(op.f("ix_kept_answer_kept_at"), "kept_answer", ["kept_at"])


def _remember_tokens() -> None:
    """Tokens that are made and revoked are in the history, without their hashes and when they were used."""
    op.execute("""
CREATE FUNCTION callflow_token_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM callflow_remember(
        'token',
        'id',
        CASE WHEN TG_OP = 'DELETE' THEN to_jsonb(OLD) - 'token_hash' - 'last_used_at' END,
        CASE WHEN TG_OP = 'INSERT' THEN to_jsonb(NEW) - 'token_hash' - 'last_used_at' END
    );
    RETURN NULL;
END
$$""")
    op.execute(
        "CREATE TRIGGER history AFTER INSERT OR DELETE ON token FOR EACH ROW EXECUTE FUNCTION callflow_token_history()"
    )


def _forget_tokens() -> None:
    op.execute("DROP TRIGGER history ON token")
    op.execute("DROP FUNCTION callflow_token_history")


def _add_profiles() -> None:
    jsonb = postgresql.JSONB(astext_type=sa.Text())
    op.create_table(
        "profile",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("where", jsonb, nullable=False),
        sa.Column("set", jsonb, nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("applied_states", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("id >= 0", name=op.f("ck_profile_id")),
        sa.CheckConstraint("applied_states >= 0", name=op.f("ck_profile_applied_states")),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name=op.f("fk_profile_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_profile")),
    )
    op.create_index(op.f("ix_profile_owner_id_profile_id"), "profile", ["owner_id", "id"])
    op.execute(
        "CREATE TRIGGER history AFTER INSERT OR UPDATE OR DELETE ON profile "
        "FOR EACH ROW EXECUTE FUNCTION callflow_history_row('profile', 'id')"
    )
    op.create_table(
        "remembered_flow",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("holder_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("device_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("history_id", sa.BigInteger(), nullable=False),
        sa.Column("before", jsonb, nullable=True),
        sa.CheckConstraint("kind IN ('profile', 'lock')", name=op.f("ck_remembered_flow_kind")),
        sa.CheckConstraint(
            "state IN ('before_call', 'no_answer', 'failed', 'busy')", name=op.f("ck_remembered_flow_state")
        ),
        sa.PrimaryKeyConstraint("kind", "holder_id", "device_id", "state", name=op.f("pk_remembered_flow")),
    )


def _drop_profiles() -> None:
    op.drop_table("remembered_flow")
    op.drop_table("profile")
