"""The policies of numbers that hold for an account's forwards, as a column of other statements."""

import json
from functools import lru_cache
from typing import Final

from callflow_service.domain.targets import TargetRules, Targets

_REMEMBERED: Final = 1_000


def target_rules_of(owner: str) -> str:
    """The column, for the account `owner`, an alias: a text for `read_target_rules`, NULL where nobody has any."""
    # Whether anybody has is looked for once in a statement, in the index of those that have some.
    return f"""CASE WHEN (
        SELECT EXISTS (SELECT FROM account WHERE num_nonnulls(country, number_pattern, targets) > 0)
            OR EXISTS (SELECT FROM account_lock)
    ) THEN callflow_target_rules({owner}.id) END"""  # noqa: S608 - our own text


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
