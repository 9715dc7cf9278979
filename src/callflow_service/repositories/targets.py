"""The policies of numbers that hold for an account's forwards, as a column of other statements."""

import json
from functools import lru_cache
from typing import Final

from callflow_service.domain.targets import TargetRules, Targets

_REMEMBERED: Final = 1_000


def target_rules_of(owner: str) -> str:
    """The column, for the account `owner`, an alias: a text for `read_target_rules`."""
    return f"""(SELECT jsonb_build_object(
        'country', coalesce({owner}.country, above.country, top.country),
        'patterns', jsonb_build_array({owner}.number_pattern, above.number_pattern, top.number_pattern),
        'targets', CASE WHEN {owner}.owner_id IS NULL THEN jsonb_build_array({owner}.targets)
            WHEN above.owner_id IS NULL THEN jsonb_build_array({owner}.targets, above.targets)
            ELSE jsonb_build_array({owner}.targets, above.targets, top.targets) END,
        'locked', EXISTS (SELECT FROM account_lock WHERE account_id IN ({owner}.id, above.id, top.id)))::text
    FROM (VALUES (1)) AS one LEFT JOIN account AS above ON above.id = {owner}.owner_id
    LEFT JOIN account AS top ON top.id = above.owner_id)"""  # noqa: S608 - an alias of ours


# The same few come with every lookup.
@lru_cache(_REMEMBERED)
def read_target_rules(text: str) -> TargetRules:
    """The rules of the column."""
    stored = json.loads(text)
    return TargetRules(
        stored["country"],
        tuple(_read_targets(each) if each else None for each in stored["targets"]),
        tuple(pattern for pattern in stored["patterns"] if pattern),
        stored["locked"],
    )


def _read_targets(stored: dict[str, object]) -> Targets:
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    return Targets(**values)  # type: ignore[arg-type]  # as the model of an account's targets wrote them
