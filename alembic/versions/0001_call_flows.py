"""Accounts, devices, DIDs, call flows, their history, switch users."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=True),
        sa.Column("api_key", sa.Text(), nullable=True),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("hash_policy", sa.Text(), nullable=True),
        sa.Column("pbx_addon", sa.Boolean(), nullable=False),
        sa.Column("api_enabled", sa.Boolean(), nullable=False),
        sa.Column("blocked", sa.Boolean(), nullable=False),
        sa.CheckConstraint("(role = 'admin') = (owner_id IS NULL)", name=op.f("ck_account_owner")),
        sa.CheckConstraint(
            "hash_policy <> 'off' OR password_hash IS NOT NULL", name=op.f("ck_account_off_needs_password")
        ),
        sa.CheckConstraint("hash_policy IN ('strict', 'compat', 'off')", name=op.f("ck_account_hash_policy")),
        sa.CheckConstraint("role IN ('admin', 'reseller', 'accountant', 'user')", name=op.f("ck_account_role")),
        sa.CheckConstraint("id >= 0", name=op.f("ck_account_id")),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name=op.f("fk_account_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
        sa.UniqueConstraint("username", name=op.f("uq_account_username")),
    )
    op.create_index(op.f("ix_account_owner_id"), "account", ["owner_id"], unique=False)
    op.create_table(
        "callflow_history",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "changed_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("face", sa.Text(), nullable=False),
        sa.Column("address", postgresql.INET(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("before", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("after", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_callflow_history")),
    )
    op.create_index(
        op.f("ix_callflow_history_device_id_callflow_history_id"), "callflow_history", ["device_id", "id"], unique=False
    )
    op.create_table(
        "switch_user",
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("trust_headers", sa.Boolean(), nullable=False),
        sa.Column("dial", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("username <> ''", name=op.f("ck_switch_user_username")),
        sa.PrimaryKeyConstraint("username", name=op.f("pk_switch_user")),
    )
    op.create_table(
        "device",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("technology", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("caller_number", sa.Text(), nullable=False),
        sa.Column("caller_name", sa.Text(), nullable=False),
        sa.Column("ring_seconds", sa.Integer(), nullable=False),
        sa.CheckConstraint("id >= 0", name=op.f("ck_device_id")),
        sa.CheckConstraint("ring_seconds BETWEEN 1 AND 3600", name=op.f("ck_device_ring_seconds")),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name=op.f("fk_device_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device")),
    )
    op.create_index(op.f("ix_device_name"), "device", ["name"], unique=False)
    op.create_index(op.f("ix_device_owner_id"), "device", ["owner_id"], unique=False)
    op.create_table(
        "did",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("device_id", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("id >= 0", name=op.f("ck_did_id")),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], name=op.f("fk_did_device_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_did")),
        sa.UniqueConstraint("id", "device_id", name=op.f("uq_did_id_device_id")),
    )
    op.create_index(op.f("ix_did_device_id"), "did", ["device_id"], unique=False)
    op.create_index("uq_did_number", "did", [sa.literal_column("ltrim(number, '+')")], unique=True)
    op.create_table(
        "callflow",
        sa.Column("device_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target_device_id", sa.BigInteger(), nullable=True),
        sa.Column("target_number", sa.Text(), nullable=True),
        sa.Column("caller_id", sa.Text(), nullable=True),
        sa.Column("caller_id_did_id", sa.BigInteger(), nullable=True),
        sa.Column("caller_id_text", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(caller_id IS NOT NULL) = (action = 'forward')", name=op.f("ck_callflow_caller_id_is_forward")
        ),
        sa.CheckConstraint(
            "(caller_id_did_id IS NOT NULL) = (caller_id IS NOT DISTINCT FROM 'did')",
            name=op.f("ck_callflow_caller_id_did"),
        ),
        sa.CheckConstraint(
            "(caller_id_text IS NOT NULL) = (caller_id IS NOT DISTINCT FROM 'custom')",
            name=op.f("ck_callflow_caller_id_text"),
        ),
        sa.CheckConstraint(
            "action <> 'fax_detect' OR state = 'before_call'", name=op.f("ck_callflow_fax_detect_before_call")
        ),
        sa.CheckConstraint(
            "action IN ('empty', 'forward', 'fax_detect', 'voicemail')", name=op.f("ck_callflow_action")
        ),
        sa.CheckConstraint("caller_id IN ('device', 'source', 'did', 'custom')", name=op.f("ck_callflow_caller_id")),
        sa.CheckConstraint(
            "num_nonnulls(target_device_id, target_number) = (action IN ('forward', 'fax_detect'))::integer",
            name=op.f("ck_callflow_one_target"),
        ),
        sa.CheckConstraint("state IN ('before_call', 'no_answer', 'failed', 'busy')", name=op.f("ck_callflow_state")),
        sa.CheckConstraint("target_number IS NULL OR action = 'forward'", name=op.f("ck_callflow_number_is_forward")),
        sa.CheckConstraint("char_length(caller_id_text) <= 255", name=op.f("ck_callflow_caller_id_text_length")),
        sa.CheckConstraint("priority >= 1", name=op.f("ck_callflow_priority")),
        sa.ForeignKeyConstraint(
            ["caller_id_did_id", "device_id"],
            ["did.id", "did.device_id"],
            name=op.f("fk_callflow_caller_id_did_id_device_id"),
        ),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], name=op.f("fk_callflow_device_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["target_device_id"], ["device.id"], name=op.f("fk_callflow_target_device_id")),
        sa.PrimaryKeyConstraint("device_id", "state", "priority", name=op.f("pk_callflow")),
        postgresql_with={"fillfactor": 80},
    )
    op.create_index(
        op.f("ix_callflow_caller_id_did_id"),
        "callflow",
        ["caller_id_did_id"],
        unique=False,
        postgresql_where=sa.text("caller_id_did_id IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_callflow_target_device_id"),
        "callflow",
        ["target_device_id"],
        unique=False,
        postgresql_where=sa.text("target_device_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index(
        op.f("ix_callflow_target_device_id"),
        table_name="callflow",
        postgresql_where=sa.text("target_device_id IS NOT NULL"),
    )
    op.drop_index(
        op.f("ix_callflow_caller_id_did_id"),
        table_name="callflow",
        postgresql_where=sa.text("caller_id_did_id IS NOT NULL"),
    )
    op.drop_table("callflow")
    op.drop_index("uq_did_number", table_name="did")
    op.drop_index(op.f("ix_did_device_id"), table_name="did")
    op.drop_table("did")
    op.drop_index(op.f("ix_device_owner_id"), table_name="device")
    op.drop_index(op.f("ix_device_name"), table_name="device")
    op.drop_table("device")
    op.drop_table("switch_user")
    op.drop_index(op.f("ix_callflow_history_device_id_callflow_history_id"), table_name="callflow_history")
    op.drop_table("callflow_history")
    op.drop_index(op.f("ix_account_owner_id"), table_name="account")
    op.drop_table("account")
