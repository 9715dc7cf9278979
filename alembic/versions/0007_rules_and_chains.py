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
# What is impossible cannot be stored in the documents of rules and chains either. In PL/pgSQL: PostgreSQL would read a
# function in SQL anew for each update, to see whether it can draw it into the check.
_POSSIBLE = (
    """
CREATE FUNCTION callflow_is_action(action jsonb, state text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
RETURN coalesce(CASE action ->> 'action'
    WHEN 'empty' THEN true
    WHEN 'voicemail' THEN NOT action ? 'of' OR jsonb_typeof(action #> '{of,device}') = 'number'
    WHEN 'end' THEN action -> 'cause' IN ('486', '480', '603', '404')
    WHEN 'fax_detect' THEN state = 'before_call' AND jsonb_typeof(action #> '{to,device}') = 'number'
    WHEN 'forward' THEN
        (SELECT count(*) FROM jsonb_path_query(action, 'strict $.steps[*]', silent => true)) BETWEEN 1 AND 10
        AND action #>> '{then,action}' IN ('empty', 'voicemail', 'end')
        AND callflow_is_action(action -> 'then', state)
        AND NOT EXISTS (
            SELECT FROM jsonb_path_query(action, 'strict $.steps[*]', silent => true) AS step
            WHERE coalesce(jsonb_typeof(step #> '{to,device}') = 'number', false)
                = coalesce(step #>> '{to,number}' ~ '^[+]?[0-9*#]{1,32}$', false)
            OR NOT coalesce((step ->> 'ring_seconds')::integer BETWEEN 1 AND 3600, true)
            OR NOT coalesce(CASE step #>> '{caller_id,kind}'
                WHEN 'device' THEN true
                WHEN 'source' THEN true
                WHEN 'did' THEN jsonb_typeof(step #> '{caller_id,did}') = 'number'
                WHEN 'custom' THEN char_length(step #>> '{caller_id,text}') <= 255
            END, false)
        )
END, false);
END
$$""",
    """
CREATE FUNCTION callflow_are_rules(rules jsonb, state text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
RETURN coalesce(
    (SELECT count(*) FROM jsonb_path_query(rules, 'strict $[*]', silent => true)) BETWEEN 1 AND 20
    AND NOT EXISTS (
        SELECT FROM jsonb_path_query(rules, 'strict $[*]', silent => true) AS rule
        WHERE NOT coalesce(
            jsonb_typeof(rule -> 'name') = 'string' AND jsonb_typeof(rule -> 'enabled') = 'boolean'
            AND jsonb_typeof(rule -> 'if') = 'object' AND callflow_is_action(rule -> 'do', state),
        false)
    ),
false);
END
$$""",
)
# What rules and chains name by an id must be there, as long as they name it.
_REFERENCES = """
CREATE FUNCTION callflow_references() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    stored jsonb;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM callflow_reference;
        RETURN NULL;
    END IF;
    DELETE FROM callflow_reference AS named WHERE named.device_id = OLD.device_id AND named.state = OLD.state;
    IF TG_OP = 'DELETE' THEN
        RETURN NULL;
    END IF;
    stored := jsonb_build_array(NEW.rules, NEW.otherwise);
    INSERT INTO callflow_reference
        (device_id, state, target_device_id, target_number, did_id, schedule_id, caller_list_id, asks_internal)
    SELECT NEW.device_id, NEW.state, target::bigint, number, did::bigint, schedule::bigint, list::bigint, asks_internal
    FROM (
        SELECT jsonb_path_query(stored, 'strict $.**.device') #>> '{}', NULL, NULL, NULL, NULL, NULL::boolean
        UNION SELECT NULL, jsonb_path_query(stored, 'strict $.**.number') #>> '{}', NULL, NULL, NULL, NULL
        UNION SELECT NULL, NULL, jsonb_path_query(stored, 'strict $.**.did') #>> '{}', NULL, NULL, NULL
        UNION SELECT NULL, NULL, NULL, jsonb_path_query(stored, 'strict $.**.schedule') #>> '{}', NULL, NULL
        UNION SELECT NULL, NULL, NULL, jsonb_path_query(stored, 'strict $.**.not_schedule') #>> '{}', NULL, NULL
        UNION SELECT NULL, NULL, NULL, NULL, jsonb_path_query(stored, 'strict $.**.list') #>> '{}', NULL
        UNION SELECT NULL, NULL, NULL, NULL, jsonb_path_query(stored, 'strict $.**.not_list') #>> '{}', NULL
        UNION SELECT NULL, NULL, NULL, NULL, NULL, true
            WHERE stored @? 'strict $.**.caller ? (@ == "internal" || @ == "external")'
    ) AS named (target, number, did, schedule, list, asks_internal);
    RETURN NULL;
END
$$"""
# A worker of the former release sets the columns alone, and knows of no chain behind them.
_SHOWN = ("action", "target_device_id", "target_number", "caller_id", "caller_id_did_id", "caller_id_text")
_FORMER = """
CREATE FUNCTION callflow_shown_alone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.otherwise := NULL;
    RETURN NEW;
END
$$"""
# What lookups ask only where there are rules, chains or numbers. In functions, for a statement that held all of it
# would take longer to begin than the usual lookup as a whole; in PL/pgSQL, which is not drawn into the statement.
_ASKED = (
    """
CREATE FUNCTION callflow_target_rules(account bigint) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT jsonb_build_object(
            'country', coalesce(owner.country, above.country, top.country),
            'patterns', jsonb_build_array(owner.number_pattern, above.number_pattern, top.number_pattern),
            'targets', CASE WHEN owner.owner_id IS NULL THEN jsonb_build_array(owner.targets)
                WHEN above.owner_id IS NULL THEN jsonb_build_array(owner.targets, above.targets)
                ELSE jsonb_build_array(owner.targets, above.targets, top.targets) END,
            'locked', EXISTS (SELECT FROM account_lock WHERE account_id IN (owner.id, above.id, top.id)))
        FROM account AS owner LEFT JOIN account AS above ON above.id = owner.owner_id
        LEFT JOIN account AS top ON top.id = above.owner_id WHERE owner.id = account
    );
END
$$""",
    # As texts, for a worker remembers what it has read of one. In parts, so that only what is named is looked for.
    """
CREATE FUNCTION callflow_notes(near bigint[], caller text, is_anonymous boolean) RETURNS text[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    named record;
    digits text := ltrim(caller, '+');
    entries text[];
    dids text;
    own_numbers text;
    schedules text;
    caller_lists text;
    internal_for text;
BEGIN
    SELECT array_remove(array_agg(did_id), NULL) AS dids,
        array_remove(array_agg(ltrim(target_number, '+')), NULL) AS numbers,
        array_remove(array_agg(schedule_id), NULL) AS schedules,
        array_remove(array_agg(caller_list_id), NULL) AS caller_lists, bool_or(asks_internal) AS asks_internal
    INTO named FROM callflow_reference WHERE device_id = ANY (near);
    IF named.dids <> '{}' THEN
        dids := (SELECT json_object_agg(did.id, did.number) FROM did WHERE did.id = ANY (named.dids));
    END IF;
    IF named.numbers <> '{}' THEN
        own_numbers := (SELECT json_object_agg(ltrim(did.number, '+'), did.device_id)
            FROM did WHERE ltrim(did.number, '+') = ANY (named.numbers));
    END IF;
    IF named.schedules <> '{}' THEN
        schedules := (SELECT json_object_agg(schedule.id, json_build_object(
                'time_zone', coalesce(schedule.time_zone, (
                    SELECT coalesce(owner.time_zone, above.time_zone, top.time_zone)
                    FROM account AS owner LEFT JOIN account AS above ON above.id = owner.owner_id
                    LEFT JOIN account AS top ON top.id = above.owner_id WHERE owner.id = schedule.owner_id)),
                'weekly', schedule.weekly, 'holidays', schedule.holidays, 'exceptions', schedule.exceptions))
            FROM schedule WHERE schedule.id = ANY (named.schedules));
    END IF;
    -- A caller is in a list by its number, by each prefix of it, and by `anonymous`.
    IF named.caller_lists <> '{}' THEN
        IF is_anonymous THEN
            entries := ARRAY['anonymous'];
        END IF;
        IF digits ~ '^[0-9]+$' THEN
            entries := entries || digits;
            FOR length IN 1 .. length(digits) LOOP
                entries := entries || (left(digits, length) || '*');
            END LOOP;
        END IF;
        caller_lists := (SELECT json_agg(entry.list_id) FROM caller_list_entry AS entry
            WHERE entry.list_id = ANY (named.caller_lists) AND entry.entry = ANY (entries));
    END IF;
    IF named.asks_internal THEN
        internal_for := (SELECT json_agg(device.id)
            FROM device JOIN account AS owner ON owner.id = device.owner_id
            WHERE device.id = ANY (near) AND CASE owner.role WHEN 'user' THEN owner.owner_id ELSE owner.id END IN (
                SELECT CASE callers.role WHEN 'user' THEN callers.owner_id ELSE callers.id END
                FROM (SELECT device_id FROM did WHERE ltrim(number, '+') = digits
                    UNION SELECT device.id FROM device WHERE device.name = caller) AS calling (id)
                JOIN device AS party ON party.id = calling.id
                JOIN account AS callers ON callers.id = party.owner_id));
    END IF;
    RETURN ARRAY[dids, own_numbers, schedules, caller_lists, internal_for];
END
$$""",
)
_NAMED_BY_FLOWS = ("target_device_id", "did_id", "schedule_id", "caller_list_id")


def upgrade() -> None:
    _add_what_conditions_stand_on()
    _add_what_watches_targets()
    _add_rules_and_chains()
    _add_guard_of_targets()


def downgrade() -> None:
    _drop_guard_of_targets()
    _drop_rules_and_chains()
    op.drop_table("target_alert")
    op.drop_table("taken_number")
    _drop_what_conditions_stand_on()


def _add_guard_of_targets() -> None:
    op.create_table(
        "account_lock",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("locked_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_account_lock_account_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_account_lock")),
    )
    op.execute(
        "CREATE TRIGGER history AFTER INSERT OR UPDATE OR DELETE ON account_lock "
        "FOR EACH ROW EXECUTE FUNCTION callflow_history_row('account_lock', 'account_id')"
    )


def _drop_guard_of_targets() -> None:
    op.drop_table("account_lock")


def _add_rules_and_chains() -> None:
    for function in _POSSIBLE:
        op.execute(function)
    for column in ("rules", "otherwise"):
        op.add_column("callflow", sa.Column(column, postgresql.JSONB(), nullable=True))
    op.create_check_constraint("rules", "callflow", "callflow_are_rules(rules, state)")
    op.create_check_constraint("otherwise", "callflow", "callflow_is_action(otherwise, state)")
    op.create_table(
        "callflow_reference",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("device_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("target_device_id", sa.BigInteger(), nullable=True),
        sa.Column("target_number", sa.Text(), nullable=True),
        sa.Column("did_id", sa.BigInteger(), nullable=True),
        sa.Column("schedule_id", sa.BigInteger(), nullable=True),
        sa.Column("caller_list_id", sa.BigInteger(), nullable=True),
        sa.Column("asks_internal", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(
            ["device_id"], ["device.id"], name=op.f("fk_callflow_reference_device_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["target_device_id"], ["device.id"], name=op.f("fk_callflow_reference_target_device_id")
        ),
        sa.ForeignKeyConstraint(
            ["did_id", "device_id"], ["did.id", "did.device_id"], name=op.f("fk_callflow_reference_did_id_device_id")
        ),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedule.id"], name=op.f("fk_callflow_reference_schedule_id")),
        sa.ForeignKeyConstraint(
            ["caller_list_id"], ["caller_list.id"], name=op.f("fk_callflow_reference_caller_list_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_callflow_reference")),
    )
    op.create_index(
        op.f("ix_callflow_reference_device_id_callflow_reference_state"), "callflow_reference", ["device_id", "state"]
    )
    for column in _NAMED_BY_FLOWS:
        op.create_index(
            op.f(f"ix_callflow_reference_{column}"),
            "callflow_reference",
            [column],
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )
    op.execute(_FORMER)
    changed = " OR ".join(f"OLD.{column} IS DISTINCT FROM NEW.{column}" for column in _SHOWN)
    op.execute(
        "CREATE TRIGGER shown_alone BEFORE UPDATE ON callflow FOR EACH ROW WHEN (NEW.otherwise IS NOT NULL "
        f"AND OLD.otherwise IS NOT DISTINCT FROM NEW.otherwise AND ({changed})) "
        "EXECUTE FUNCTION callflow_shown_alone()"
    )
    op.execute(_REFERENCES)
    op.create_index(
        "ix_account_with_target_rules",
        "account",
        ["id"],
        postgresql_where=sa.text("num_nonnulls(country, number_pattern, targets) > 0"),
    )
    for function in _ASKED:
        op.execute(function)
    op.execute(
        "CREATE TRIGGER refers AFTER INSERT ON callflow FOR EACH ROW "
        "WHEN (NEW.rules IS NOT NULL OR NEW.otherwise IS NOT NULL) EXECUTE FUNCTION callflow_references()"
    )
    op.execute(
        "CREATE TRIGGER refers_anew AFTER UPDATE ON callflow FOR EACH ROW WHEN (OLD.rules IS DISTINCT FROM NEW.rules "
        "OR OLD.otherwise IS DISTINCT FROM NEW.otherwise) EXECUTE FUNCTION callflow_references()"
    )
    op.execute(
        "CREATE TRIGGER refers_no_more AFTER DELETE ON callflow FOR EACH ROW "
        "WHEN (OLD.rules IS NOT NULL OR OLD.otherwise IS NOT NULL) EXECUTE FUNCTION callflow_references()"
    )
    op.execute(
        "CREATE TRIGGER refers_to_nothing AFTER TRUNCATE ON callflow "
        "FOR EACH STATEMENT EXECUTE FUNCTION callflow_references()"
    )


def _drop_rules_and_chains() -> None:
    for trigger in ("shown_alone", "refers", "refers_anew", "refers_no_more", "refers_to_nothing"):
        op.execute(f"DROP TRIGGER {trigger} ON callflow")
    op.execute("DROP FUNCTION callflow_references")
    op.execute("DROP FUNCTION callflow_shown_alone")
    for function in ("callflow_notes", "callflow_target_rules"):
        op.execute(f"DROP FUNCTION {function}")
    op.drop_index("ix_account_with_target_rules", table_name="account")
    op.drop_table("callflow_reference")
    for column in ("rules", "otherwise"):
        op.drop_column("callflow", column)
    op.execute("DROP FUNCTION callflow_are_rules")
    op.execute("DROP FUNCTION callflow_is_action")


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


def _add_what_watches_targets() -> None:
    op.create_table(
        "taken_number",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("country", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_taken_number_account_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "number", name=op.f("pk_taken_number")),
    )
    now = sa.func.clock_timestamp()
    op.create_table(
        "target_alert",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("times", sa.Integer(), server_default="1", nullable=False),
        sa.Column("device_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("face", sa.Text(), nullable=False),
        sa.Column("address", postgresql.INET(), nullable=True),
        sa.CheckConstraint("times >= 1", name=op.f("ck_target_alert_times")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_target_alert")),
    )
    for column in ("device_id", "account_id"):
        op.create_index(op.f(f"ix_target_alert_{column}_target_alert_id"), "target_alert", [column, "id"])


def _drop_what_conditions_stand_on() -> None:
    for table in ("caller_list_entry", *_NAMED):
        op.drop_table(table)
    op.execute("DROP FUNCTION caller_list_entries")
    # What they say of themselves goes with their columns.
    for column in ("time_zone", "country", "number_pattern", "targets"):
        op.drop_column("account", column)
