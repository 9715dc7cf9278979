"""The facts of one request, and the call flow that it leaves."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, NoReturn, assert_never

from asyncpg import Connection, IntegrityConstraintViolationError

from callflow_service.domain.access import Account, OwnedDevice, Role
from callflow_service.domain.callflow import (
    NAMES_NOTHING,
    Action,
    AsItComes,
    CallerId,
    CallerIdKind,
    CallFlow,
    Custom,
    Device,
    Empty,
    FaxDetect,
    Forward,
    FromDevice,
    FromDid,
    Rule,
    State,
    Voicemail,
    first_step,
)
from callflow_service.domain.changing import AssignedDid, Change, ChangeFacts, WantedChange
from callflow_service.domain.errors import (
    ConditionNotFound,
    DeviceNotFound,
    DidNotFound,
    FaxDeviceNotFound,
    LocalDeviceNotFound,
)
from callflow_service.domain.flow_documents import action_document, rule_document, without_labels
from callflow_service.domain.history import Origin
from callflow_service.domain.signature import HashPolicy
from callflow_service.domain.targets import NO_TARGET_RULES
from callflow_service.repositories.rights import may_use
from callflow_service.repositories.targets import read_target_rules, target_rules_of

# To read a list of a hundred networks takes as long as the statement that brings it.
_REMEMBERED_LISTS: Final = 1_000

_ACCOUNT: Final = """
    caller.id, caller.username, caller.role, caller.blocked,
    caller.api_enabled AND (owner.role IS DISTINCT FROM 'reseller' OR owner.api_enabled),
    caller.pbx_addon, caller.hash_policy,
    coalesce(caller.api_key, owner.api_key, owners_owner.api_key, ''),
    caller.password_hash, caller.allowed_addresses::text[]"""

_DEVICE: Final = """,
    device.id, device.technology, device.name, device.owner_id, device_owner.name, device_owner.owner_id,
    device.ring_seconds"""


def _join_device(name: str, parameter: str) -> str:
    """Join a device by its id, and its owner, where the caller may use it."""
    return f"""
LEFT JOIN (device AS {name} JOIN account AS {name}_owner ON {name}_owner.id = {name}.owner_id)
    ON {name}.id = {parameter} AND {may_use(f"{name}_owner")}"""


_CALLER_AND_DEVICE: Final = f"""
FROM (VALUES (1)) AS request
LEFT JOIN account AS caller ON caller.username = $1
LEFT JOIN account AS owner ON owner.id = caller.owner_id
LEFT JOIN account AS owners_owner ON owners_owner.id = owner.owner_id{_join_device("device", "$2")}"""

_LOAD_FACTS: Final = f"""SELECT {_ACCOUNT}{_DEVICE},
    target.id, target.technology, target.name, target.owner_id, target_owner.name, target_owner.owner_id,
    target.ring_seconds,
    fax.id, fax.technology, fax.name, fax.owner_id, fax_owner.name, fax_owner.owner_id, fax.ring_seconds,
    did.id, did.number, did.device_id,
    CASE WHEN $6 THEN {target_rules_of("device_owner")} END
{_CALLER_AND_DEVICE}{_join_device("target", "$3")}{_join_device("fax", "$4")}
LEFT JOIN did ON did.id = $5"""

# What is set is looked for by `coalesce`: by the plain id PostgreSQL would look before it knows whose the device is.
_LOAD_FLOWS: Final = f"""SELECT {_ACCOUNT}{_DEVICE},
    flow.state, flow.action, target.id, target.technology, target.name, flow.target_number, flow.caller_id,
    did.id, did.number, flow.caller_id_text {_CALLER_AND_DEVICE}
LEFT JOIN callflow AS flow ON flow.device_id = coalesce(device.id, {NAMES_NOTHING}) AND flow.priority = 1
LEFT JOIN device AS target ON target.id = flow.target_device_id
LEFT JOIN did ON did.id = flow.caller_id_did_id"""

STORED: Final = (
    "action",
    "target_device_id",
    "target_number",
    "caller_id",
    "caller_id_did_id",
    "caller_id_text",
    "otherwise",
    "rules",
)
"""The columns of a stored call flow beside its key, in the order of `stored_columns`."""

_NAMES: Final = ", ".join(STORED)
_VALUES: Final = ", ".join(f"${3 + place}" for place in range(len(STORED)))
_ORIGIN: Final = ", ".join(f"${3 + len(STORED) + place}" for place in range(5))
_EXCLUDED: Final = ", ".join(f"{name} = excluded.{name}" for name in STORED if name != "rules")
_KEEPS_RULES: Final = f"${3 + len(STORED) + 5}"

# One statement, so one transaction: the row and its history are there together or not at all. What the row was before
# comes from the WHERE of the conflict, which alone sees it locked and so as it really was: what the statement itself
# reads is older than a first change that came in meanwhile. It is handed on in a setting that ends with the
# transaction, and is emptied first, for there may have been another change in the same one.
_SAVE: Final = f"""WITH saved AS (
    INSERT INTO callflow (device_id, state, priority, {_NAMES})
    SELECT $1, $2, 1, {_VALUES} FROM set_config('callflow.before', '', true)
    ON CONFLICT (device_id, state, priority) DO UPDATE SET {_EXCLUDED},
        rules = CASE WHEN {_KEEPS_RULES} THEN callflow.rules ELSE excluded.rules END
    WHERE set_config('callflow.before', to_jsonb(callflow)::text, true) IS NOT NULL
    RETURNING nullif(current_setting('callflow.before'), '')::jsonb AS before, to_jsonb(callflow) AS after
)
INSERT INTO callflow_history
    (account_id, face, address, request_id, undoes, device_id, state, priority, before, after)
SELECT {_ORIGIN}, $1, $2, 1, before, after FROM saved
RETURNING id"""  # noqa: S608 - our own names


async def load_facts(connection: Connection, username: str | None, wanted: WantedChange) -> ChangeFacts:
    """Everything that deciding on a change needs, in one statement."""
    (row,) = await connection.fetch(
        _LOAD_FACTS,
        *(username, wanted.device_id, wanted.forward_to_device, wanted.fax_device, wanted.did_id),
        wanted.external_number is not None,
    )
    return ChangeFacts(
        account=_account(row),
        device=_owned_device(row, 10),
        forward_device=_owned_device(row, 17),
        fax_device=_owned_device(row, 24),
        did=None if row[31] is None else AssignedDid(row[31], row[32], row[33]),
        targets=read_target_rules(row[34]) if row[34] else NO_TARGET_RULES,
    )


async def load_flows(
    connection: Connection, username: str | None, device_id: int
) -> tuple[ChangeFacts, Mapping[State, CallFlow]]:
    """The caller, the device and what is set for it, in one statement; a state that was never touched is not there."""
    rows = await connection.fetch(_LOAD_FLOWS, username, device_id)
    facts = ChangeFacts(account=_account(rows[0]), device=_owned_device(rows[0], 10))
    return facts, {State(row[17]): call_flow(row[18:]) for row in rows if row[17] is not None}


async def save(connection: Connection, change: Change, origin: Origin) -> int:
    """Store a call flow and its history, in one statement; the id of the history entry.

    Raises:
        ChangeRefused: What the call flow names vanished since the facts were loaded; nothing was stored.
    """
    parameters = (
        *(change.device.device.id, change.state, *stored_columns(change.flow, change.rules).values()),
        *(origin.account_id, origin.face, origin.sender.address, origin.sender.request_id, origin.undoes),
        change.rules is None,
    )
    try:
        ((history_id,),) = await connection.fetch(_SAVE, *parameters)
    except IntegrityConstraintViolationError as error:
        _raise_vanished(error, change.flow)
    return int(history_id)


def stored_columns(flow: CallFlow, rules: Sequence[Rule] | None) -> dict[str, Any]:
    """A state as its row has it, by the names of `STORED`.

    The first columns are what MOR's calls show of the action; `otherwise` is the whole where that is not all of it.
    """
    shown = first_step(flow)
    action = Action.EMPTY
    target: Device | str | None = None
    caller_id: tuple[CallerIdKind | None, int | None, str | None] = (None, None, None)
    match shown:
        case Voicemail():
            action = Action.VOICEMAIL
        case FaxDetect(target):
            action = Action.FAX_DETECT
        case Forward(steps):
            action, target = Action.FORWARD, steps[0].destination
            caller_id = _caller_id_columns(steps[0].caller_id)
        case _:
            pass
    target_device_id, target_number = (target.id, None) if isinstance(target, Device) else (None, target)
    otherwise = None if shown == flow else json.dumps(without_labels(action_document(flow)))
    documents = json.dumps([without_labels(rule_document(rule)) for rule in rules]) if rules else None
    values = (action, target_device_id, target_number, *caller_id, otherwise, documents)
    return dict(zip(STORED, values, strict=True))


def call_flow(columns: tuple[Any, ...]) -> CallFlow:
    """A stored call flow, from: action, target id, technology and name, number, caller ID, DID id and number, text."""
    action, target_id, technology, name, number, caller_id, did_id, did_number, custom = columns
    match action:
        case Action.EMPTY:
            return Empty()
        case Action.VOICEMAIL:
            return Voicemail()
        case Action.FAX_DETECT:
            return FaxDetect(Device(target_id, technology, name))
        case _:
            destination = number if target_id is None else Device(target_id, technology, name)
            return Forward.to(destination, _caller_id(caller_id, did_id, did_number, custom))


def _account(row: tuple[Any, ...]) -> Account | None:
    if row[0] is None:
        return None
    return Account(
        id=row[0],
        username=row[1],
        role=Role(row[2]),
        blocked=row[3],
        api_enabled=row[4],
        pbx_addon=row[5],
        hash_policy=None if row[6] is None else HashPolicy(row[6]),
        api_key=row[7],
        password_hash=row[8],
        allowed_addresses=_networks(tuple(row[9] or ())),
    )


@lru_cache(_REMEMBERED_LISTS)
def _networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(map(ip_network, texts))


def _owned_device(row: tuple[Any, ...], start: int) -> OwnedDevice | None:
    if row[start] is None:
        return None
    id_, technology, name, owner_id, owner_name, reseller_id, ring_seconds = row[start : start + 7]
    return OwnedDevice(Device(id_, technology, name), owner_id, owner_name, reseller_id, ring_seconds)


def _caller_id_columns(choice: CallerId) -> tuple[CallerIdKind, int | None, str | None]:
    match choice:
        case FromDevice():
            return CallerIdKind.DEVICE, None, None
        case AsItComes():
            return CallerIdKind.SOURCE, None, None
        case FromDid(did_id):
            return CallerIdKind.DID, did_id, None
        case Custom(text):
            return CallerIdKind.CUSTOM, None, text
        case _:
            assert_never(choice)


def _caller_id(kind: str, did_id: int, did_number: str, custom: str) -> CallerId:
    match kind:
        case CallerIdKind.DEVICE:
            return FromDevice()
        case CallerIdKind.SOURCE:
            return AsItComes()
        case CallerIdKind.DID:
            return FromDid(did_id, did_number)
        case _:
            return Custom(custom)


def _raise_vanished(error: IntegrityConstraintViolationError, flow: CallFlow) -> NoReturn:
    """Turn the constraint that was violated into what the caller is told."""
    match error.constraint_name:
        case "fk_callflow_device_id":
            raise DeviceNotFound from error
        case "fk_callflow_target_device_id" if isinstance(flow, FaxDetect):
            raise FaxDeviceNotFound from error
        case "fk_callflow_target_device_id" | "fk_callflow_reference_target_device_id":
            raise LocalDeviceNotFound from error
        case "fk_callflow_caller_id_did_id_device_id" | "fk_callflow_reference_did_id_device_id":
            raise DidNotFound from error
        case "fk_callflow_reference_schedule_id" | "fk_callflow_reference_caller_list_id":
            raise ConditionNotFound from error
        case _:
            raise error
