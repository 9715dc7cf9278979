"""Changes of every resource leave history; tokens of the JSON API."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# One trigger function for the four tables, with the kind and the key column for its arguments. The origin is set by the
# transaction that changes something; one without it (a load, a rotation of keys, a change by hand) is not told of.
# Secrets are left out, and told as changed.
_FUNCTIONS = (
    """
CREATE FUNCTION callflow_shown(stored jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
SELECT stored - 'api_key' - 'password_hash'
    || CASE WHEN stored ? 'api_key' THEN jsonb_build_object('has_api_key', stored ->> 'api_key' IS NOT NULL)
       ELSE '{}' END
    || CASE WHEN stored ? 'password_hash'
       THEN jsonb_build_object('has_password', stored ->> 'password_hash' IS NOT NULL)
       ELSE '{}' END
$$""",
    """
CREATE FUNCTION callflow_remember(what text, key text, was jsonb, is_now jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    origin jsonb := nullif(current_setting('callflow.origin', true), '')::jsonb;
    shown_before jsonb := callflow_shown(was);
    shown_after jsonb := callflow_shown(is_now);
    secret text;
BEGIN
    IF origin IS NULL THEN
        RETURN;
    END IF;
    IF was IS NOT NULL AND is_now IS NOT NULL THEN
        FOREACH secret IN ARRAY ARRAY['api_key', 'password_hash'] LOOP
            IF was ->> secret IS DISTINCT FROM is_now ->> secret THEN
                shown_after := shown_after || jsonb_build_object(secret || '_changed', true);
            END IF;
        END LOOP;
        IF shown_before = shown_after THEN
            RETURN;
        END IF;
    END IF;
    INSERT INTO callflow_history
        (kind, resource, account_id, face, address, request_id, device_id, undoes, before, after)
    VALUES (
        what,
        coalesce(is_now, was) ->> key,
        (origin ->> 'account')::bigint,
        origin ->> 'face',
        (origin ->> 'address')::inet,
        origin ->> 'request_id',
        CASE what WHEN 'device' THEN (coalesce(is_now, was) ->> 'id')::bigint
            WHEN 'did' THEN (coalesce(is_now, was) ->> 'device_id')::bigint END,
        (origin ->> 'undoes')::bigint,
        shown_before,
        shown_after
    );
END
$$""",
    """
CREATE FUNCTION callflow_history_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM callflow_remember(
        TG_ARGV[0],
        TG_ARGV[1],
        CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END,
        CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END
    );
    RETURN NULL;
END
$$""",
)
# Searches by any part of a text. A PostgreSQL without the extension answers them all the same, only slower.
_SEARCH = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
        CREATE EXTENSION IF NOT EXISTS pg_trgm;
        CREATE INDEX ix_search_device ON device USING gin (
            lower(device.technology || '/' || device.name || ' ' || device.caller_name || ' ' || device.caller_number)
            gin_trgm_ops);
        CREATE INDEX ix_search_did ON did USING gin (lower(number) gin_trgm_ops);
        CREATE INDEX ix_search_account ON account USING gin (lower(username || ' ' || name) gin_trgm_ops);
    END IF;
END
$$"""
_KEYS = {"account": "id", "device": "id", "did": "id", "switch_user": "username"}


def upgrade() -> None:
    op.add_column("callflow_history", sa.Column("kind", sa.Text(), server_default="callflow", nullable=False))
    op.add_column("callflow_history", sa.Column("resource", sa.Text(), nullable=True))
    op.add_column("callflow_history", sa.Column("undoes", sa.BigInteger(), nullable=True))
    for column in ("account_id", "device_id", "state", "priority", "after"):
        op.alter_column("callflow_history", column, nullable=True)
    op.create_check_constraint(
        "callflow_is_whole",
        "callflow_history",
        "kind <> 'callflow' OR num_nonnulls(device_id, state, priority, after) = 4",
    )
    op.create_check_constraint("resource", "callflow_history", "kind = 'callflow' OR resource IS NOT NULL")
    op.create_check_constraint("something_changed", "callflow_history", "num_nonnulls(before, after) > 0")
    op.create_index(
        op.f("ix_callflow_history_account_id_callflow_history_id"), "callflow_history", ["account_id", "id"]
    )
    # One account's devices in the order of their ids, from any place on.
    op.create_index(op.f("ix_device_owner_id_device_id"), "device", ["owner_id", "id"])
    op.drop_index(op.f("ix_device_owner_id"), table_name="device")
    op.create_table(
        "token",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("scope IN ('read', 'write')", name=op.f("ck_token_scope")),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_token_account_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_token_token_hash")),
    )
    op.create_index(op.f("ix_token_account_id"), "token", ["account_id"])
    for function in _FUNCTIONS:
        op.execute(function)
    for table, key in _KEYS.items():
        op.execute(
            f"CREATE TRIGGER history AFTER INSERT OR UPDATE OR DELETE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION callflow_history_row('{table}', '{key}')"
        )

    op.execute(_SEARCH)


def downgrade() -> None:
    op.execute("DROP INDEX IF EXISTS ix_search_device, ix_search_did, ix_search_account")
    for table in _KEYS:
        op.execute(f"DROP TRIGGER history ON {table}")
    op.execute("DROP FUNCTION callflow_history_row")
    op.execute("DROP FUNCTION callflow_remember")
    op.execute("DROP FUNCTION callflow_shown")
    op.drop_table("token")
    op.execute("DELETE FROM callflow_history WHERE kind <> 'callflow' OR account_id IS NULL")
    op.drop_constraint(op.f("ck_callflow_history_callflow_is_whole"), "callflow_history")
    op.drop_constraint(op.f("ck_callflow_history_resource"), "callflow_history")
    op.drop_constraint(op.f("ck_callflow_history_something_changed"), "callflow_history")
    op.drop_index(op.f("ix_callflow_history_account_id_callflow_history_id"), table_name="callflow_history")
    op.create_index(op.f("ix_device_owner_id"), "device", ["owner_id"])
    op.drop_index(op.f("ix_device_owner_id_device_id"), table_name="device")
    for column in ("account_id", "device_id", "state", "priority", "after"):
        op.alter_column("callflow_history", column, nullable=False)
    for column in ("undoes", "resource", "kind"):
        op.drop_column("callflow_history", column)
