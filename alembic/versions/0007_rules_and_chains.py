"""Rules, schedules, caller lists, chains and targets."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Entries are stored twice: in the list, as people read them, and one by one, where an index finds them.
_ENTRIES = """
CREATE FUNCTION caller_list_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM caller_list_entry WHERE list_id = NEW.id
        AND entry NOT IN (SELECT ltrim(wanted, '+') FROM unnest(NEW.entries) AS wanted);
    INSERT INTO caller_list_entry SELECT NEW.id, ltrim(wanted, '+') FROM unnest(NEW.entries) AS wanted
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$"""
_SEARCH_NAMES = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm') THEN
        CREATE INDEX ix_search_schedule ON schedule USING gin (lower(name) gin_trgm_ops);
        CREATE INDEX ix_search_caller_list ON caller_list USING gin (lower(name) gin_trgm_ops);
    END IF;
END
$$"""
_ACCOUNT_CHECKS = {
    "country": "country ~ '^[A-Z]{2}$'",
    "number_pattern": "char_length(number_pattern) <= 255",
    "targets": "jsonb_typeof(targets) = 'object'",
}
_NAMED = ("schedule", "caller_list")


def upgrade() -> None:
    _add_what_conditions_stand_on()


def downgrade() -> None:
    _drop_what_conditions_stand_on()


def _add_what_conditions_stand_on() -> None:
    for column in ("time_zone", "country", "number_pattern"):
        op.add_column("account", sa.Column(column, sa.Text(), nullable=True))
    op.add_column("account", sa.Column("targets", postgresql.JSONB(), nullable=True))
    for column, check in _ACCOUNT_CHECKS.items():
        op.create_check_constraint(column, "account", check)
    op.create_table(
        "schedule",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=True),
        sa.Column("weekly", postgresql.JSONB(), nullable=False),
        sa.Column("holidays", postgresql.JSONB(), nullable=True),
        sa.Column("exceptions", postgresql.JSONB(), nullable=False),
        sa.CheckConstraint("id >= 0", name=op.f("ck_schedule_id")),
        sa.CheckConstraint("jsonb_typeof(weekly) = 'array'", name=op.f("ck_schedule_weekly")),
        sa.CheckConstraint("jsonb_typeof(holidays) = 'object'", name=op.f("ck_schedule_holidays")),
        sa.CheckConstraint("jsonb_typeof(exceptions) = 'array'", name=op.f("ck_schedule_exceptions")),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name=op.f("fk_schedule_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule")),
    )
    op.create_table(
        "caller_list",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("entries", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.CheckConstraint("id >= 0", name=op.f("ck_caller_list_id")),
        sa.CheckConstraint("cardinality(entries) <= 10000", name=op.f("ck_caller_list_entries")),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name=op.f("fk_caller_list_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_caller_list")),
    )
    op.create_table(
        "caller_list_entry",
        sa.Column("list_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["list_id"], ["caller_list.id"], name=op.f("fk_caller_list_entry_list_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("list_id", "entry", name=op.f("pk_caller_list_entry")),
    )
    for table in _NAMED:
        op.create_index(op.f(f"ix_{table}_owner_id_{table}_id"), table, ["owner_id", "id"])
        op.execute(
            f"CREATE TRIGGER history AFTER INSERT OR UPDATE OR DELETE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION callflow_history_row('{table}', 'id')"
        )
    op.execute(_ENTRIES)
    op.execute(
        "CREATE TRIGGER entries AFTER INSERT OR UPDATE OF entries ON caller_list "
        "FOR EACH ROW EXECUTE FUNCTION caller_list_entries()"
    )
    op.execute(_SEARCH_NAMES)


def _drop_what_conditions_stand_on() -> None:
    for table in ("caller_list_entry", *_NAMED):
        op.drop_table(table)
    op.execute("DROP FUNCTION caller_list_entries")
    # What they say of themselves goes with their columns.
    for column in ("time_zone", "country", "number_pattern", "targets"):
        op.drop_column("account", column)
