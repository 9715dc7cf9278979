"""Changes are numbered in commit order, and delivered to webhooks."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# A transaction may go on for long after it wrote its history, and others end before it: what counts is when it ends.
# The trigger is deferred, so it runs as the last thing before the commit; all changes of a transaction get one turn.
_TAKE_TURN = """
CREATE FUNCTION callflow_take_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('callflow.turn', true), '') = '' THEN
        PERFORM set_config('callflow.turn', nextval('callflow_history_id_seq')::text, true);
    END IF;
    UPDATE callflow_history SET turn = current_setting('callflow.turn')::bigint WHERE id = NEW.id;
    RETURN NULL;
END
$$"""
# A statement that is its own transaction takes its id as it ends; connections for such say so.
_TURN = """
CREATE CONSTRAINT TRIGGER turn AFTER INSERT ON callflow_history DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
WHEN (current_setting('callflow.one_statement', true) IS DISTINCT FROM 'on')
EXECUTE FUNCTION callflow_take_turn()"""

# As the other tables' trigger does it, with the secret left out and told as changed.
_WEBHOOK_HISTORY = """
CREATE FUNCTION callflow_history_webhook() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    is_now jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
    told jsonb := is_now - 'secret';
BEGIN
    IF TG_OP = 'UPDATE' AND was ->> 'secret' <> is_now ->> 'secret' THEN
        told := told || jsonb_build_object('secret_changed', true);
    END IF;
    PERFORM callflow_remember('webhook', 'id', was - 'secret', told);
    RETURN NULL;
END
$$"""


def upgrade() -> None:
    _add_feed()
    _add_webhooks()


def downgrade() -> None:
    _drop_webhooks()
    _drop_feed()


def _add_feed() -> None:
    op.add_column("callflow_history", sa.Column("turn", sa.BigInteger(), nullable=True))
    op.add_column("callflow_history", sa.Column("position", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_callflow_history_waiting",
        "callflow_history",
        [sa.text("coalesce(turn, id)"), "id"],
        postgresql_where=sa.text("position IS NULL"),
    )
    op.create_index(
        "uq_callflow_history_position",
        "callflow_history",
        ["position"],
        unique=True,
        postgresql_where=sa.text("position IS NOT NULL"),
    )
    op.execute(_TAKE_TURN)
    op.execute(_TURN)
    op.create_table(
        "change_feed",
        sa.Column("is_only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("head", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("is_only", name=op.f("ck_change_feed_one_row")),
        sa.PrimaryKeyConstraint("is_only", name=op.f("pk_change_feed")),
    )
    op.execute("INSERT INTO change_feed (head) VALUES (0)")


def _drop_feed() -> None:
    op.drop_table("change_feed")
    op.execute("DROP TRIGGER turn ON callflow_history")
    op.execute("DROP FUNCTION callflow_take_turn")
    op.drop_index("uq_callflow_history_position", table_name="callflow_history")
    op.drop_index("ix_callflow_history_waiting", table_name="callflow_history")
    for column in ("position", "turn"):
        op.drop_column("callflow_history", column)


def _add_webhooks() -> None:
    op.create_table(
        "webhook",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("events", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("disabled_because", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_webhook_account_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook")),
    )
    op.create_index(op.f("ix_webhook_account_id_webhook_id"), "webhook", ["account_id", "id"])
    op.create_table(
        "webhook_progress",
        sa.Column("webhook_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rests_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhook.id"], name=op.f("fk_webhook_progress_webhook_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("webhook_id", name=op.f("pk_webhook_progress")),
    )
    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("webhook_id", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("history_id", sa.BigInteger(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (outcome IS NULL)", name=op.f("ck_webhook_delivery_outcome_when_finished")
        ),
        sa.CheckConstraint("outcome IN ('delivered', 'given_up')", name=op.f("ck_webhook_delivery_outcome")),
        sa.CheckConstraint("due_at IS NULL OR finished_at IS NULL", name=op.f("ck_webhook_delivery_due_or_finished")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_delivery")),
        sa.UniqueConstraint("webhook_id", "history_id", name=op.f("uq_webhook_delivery_webhook_id_history_id")),
    )
    op.create_index(
        op.f("ix_webhook_delivery_webhook_id_webhook_delivery_id"), "webhook_delivery", ["webhook_id", "id"]
    )
    for name, columns, where in (
        ("due", ["webhook_id", "due_at"], "due_at IS NOT NULL"),
        ("waiting", ["webhook_id", "subject", "id"], "finished_at IS NULL"),
        ("finished", ["finished_at"], "finished_at IS NOT NULL"),
    ):
        op.create_index(f"ix_webhook_delivery_{name}", "webhook_delivery", columns, postgresql_where=sa.text(where))
    op.create_table(
        "webhook_attempt",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("delivery_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("milliseconds", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["webhook_delivery.id"], name=op.f("fk_webhook_attempt_delivery_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_attempt")),
    )
    op.create_index(op.f("ix_webhook_attempt_delivery_id_webhook_attempt_id"), "webhook_attempt", ["delivery_id", "id"])
    op.execute(_WEBHOOK_HISTORY)
    op.execute(
        "CREATE TRIGGER history AFTER INSERT OR UPDATE OR DELETE ON webhook "
        "FOR EACH ROW EXECUTE FUNCTION callflow_history_webhook()"
    )


def _drop_webhooks() -> None:
    for table in ("webhook_attempt", "webhook_delivery", "webhook_progress", "webhook"):
        op.drop_table(table)
    op.execute("DROP FUNCTION callflow_history_webhook")
