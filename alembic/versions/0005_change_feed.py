"""Changes are numbered in commit order, and delivered to webhooks."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

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


def upgrade() -> None:
    _add_feed()


def downgrade() -> None:
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
