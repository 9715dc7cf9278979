"""One function for each thing a caller can ask: load the facts, let the domain decide, save."""

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from asyncpg import Connection

from callflow_service.credentials.api_keys import Keyring
from callflow_service.credentials.counting import Guesser
from callflow_service.credentials.guesses import Guessed, Guesses, guesser
from callflow_service.credentials.passwords import Passwords
from callflow_service.domain import access, changing
from callflow_service.domain.access import Account, Claim, OwnedDevice, PasswordCheck
from callflow_service.domain.callerid import Caller
from callflow_service.domain.callflow import NAMES_NOTHING, CallFlow, State
from callflow_service.domain.changing import Change, WantedChange
from callflow_service.domain.dialing import NO_TRUNK, DialPlan
from callflow_service.domain.errors import ChangeRefused, LoginFailed, NotAuthorised, SignatureMismatch
from callflow_service.domain.path import Path, new_flow_id
from callflow_service.domain.routing import Decision, Facts, FactsMissing, Question, Rules, route
from callflow_service.domain.signature import HashPolicy
from callflow_service.repositories import callflows, lookups
from callflow_service.repositories.callflows import Face, Origin
from callflow_service.repositories.lookups import SwitchUser
from callflow_service.storage.database import Database
from callflow_service.storage.replica import ReplicaFirst

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sender:
    """Where a request came from, for the history: the caller's address behind trusted proxies, and the request's id."""

    address: IPv4Address | IPv6Address | None
    request_id: str


@dataclass(frozen=True, slots=True)
class DeviceCallFlow:
    """A device and what is set for it; a state that is not there was never touched."""

    device: OwnedDevice
    flows: Mapping[State, CallFlow]


@dataclass(frozen=True, slots=True)
class CallFlows:
    """What callers can ask about call flows, under the operator's rules.

    Attributes:
        database: Where they are.
        api_enabled: Whether anybody may call at all.
        default_policy: The signature policy of accounts that have none of their own.
        guesses: Refuses who was wrong too often about an account.
        passwords: Checks the passwords of those who send one.
        keys: Decrypts the API keys that requests are signed with.
    """

    database: Database
    api_enabled: bool
    default_policy: HashPolicy
    guesses: Guesses
    passwords: Passwords
    keys: Keyring

    async def update(self, claim: Claim, wanted: WantedChange, sender: Sender) -> Change:
        """Change what a device does in one state; two statements.

        Raises:
            CallFlowError: The first thing that is wrong, in the order of MOR's error table; nothing was changed.
            TooManyGuesses: Wrong requests for this account came from the sender's address too often.
            StorageUnavailable: The database cannot be asked.
        """
        who = _guesser(claim, sender)

        async def work(connection: Connection) -> Change:
            facts = await callflows.load_facts(connection, claim.username, wanted)
            account = await self._admit(facts.account, claim, sender, who=who, check_signature=_check_update_signature)
            meant = wanted.with_plus() if access.is_plus_signed(account, claim) else wanted
            change = changing.decide(account, facts, meant)
            await callflows.save(connection, change, Origin(account.id, Face.MOR, sender.address, sender.request_id))
            return change

        return await self._run(work, who)

    async def get(self, claim: Claim, device_id: int, sender: Sender) -> DeviceCallFlow:
        """What a device does in each state; one statement.

        Raises:
            CallFlowError: The first thing that is wrong.
            TooManyGuesses: Wrong requests for this account came from the sender's address too often.
            StorageUnavailable: The database cannot be asked.
        """
        who = _guesser(claim, sender)

        async def work(connection: Connection) -> DeviceCallFlow:
            facts, flows = await callflows.load_flows(connection, claim.username, device_id)
            account = await self._admit(
                facts.account, claim, sender, who=who, check_signature=access.check_get_signature
            )
            return DeviceCallFlow(changing.usable_device(account, facts.device), flows)

        return await self._run(work, who)

    async def _admit(
        self,
        account: Account | None,
        claim: Claim,
        sender: Sender,
        *,
        who: Guesser,
        check_signature: Callable[[Account, Claim, HashPolicy], None],
    ) -> Account:
        # Again, now that the facts are there: of many guesses at once others may have been wrong meanwhile.
        self.guesses.refuse_known(who)
        access.check_open(account, claim, api_enabled=self.api_enabled)
        policy = (account and account.hash_policy) or self.default_policy
        try:
            # Before the password is looked at: who is elsewhere shall not make us work, nor learn more than of nobody.
            access.check_address(account, sender.address)
            account = access.check_login(account, self._check_password(account, claim), policy)
            if policy is not HashPolicy.OFF:
                # Not before: a key that cannot be decrypted must not refuse an account that needs none.
                account = replace(account, api_key=self.keys.decrypt_for_request(account.api_key, account.username))
            check_signature(account, claim, policy)
        except (LoginFailed, SignatureMismatch):
            await self.guesses.count(who)
            raise
        access.check_role(account)
        return account

    def _check_password(self, account: Account | None, claim: Claim) -> PasswordCheck:
        if account is None or account.password_hash is None or claim.password is None:
            return PasswordCheck.NOT_CHECKED
        if self.passwords.is_remembered(claim.password, account.password_hash):
            return PasswordCheck.RIGHT
        raise _PasswordNotSeen(claim.password, account.password_hash)

    async def _run(self, work: Callable[[Connection], Awaitable[T]], who: Guesser) -> T:
        """Do the work on a connection, for somebody who was not wrong too often.

        A password that was not seen before is checked between sessions: the slow hash must not hold a connection that
        others wait for, nor look like a slow database. Then the work is done anew.
        """
        await self.guesses.refuse(who)
        try:
            while True:
                try:
                    found = await self.database.run(work)
                    break
                except _PasswordNotSeen as unseen:
                    right = await self.passwords.is_right(unseen.password, unseen.password_hash, who)
                    self.guesses.refuse_known(who)
                    if not right:
                        await self.guesses.count(who)
                        raise LoginFailed from None
        except (LoginFailed, SignatureMismatch):
            # Not before the session is free: Redis must not hold a connection that others wait for.
            await self.guesses.share(who)
            raise
        except (NotAuthorised, ChangeRefused):
            await self.guesses.forgive(who)
            raise
        await self.guesses.forgive(who)
        return found


def _guesser(claim: Claim, sender: Sender) -> Guesser:
    return guesser(Guessed.ACCOUNT, claim.username or "", sender.address)


def _check_update_signature(account: Account, claim: Claim, policy: HashPolicy) -> None:
    try:
        access.check_update_signature(account, claim, policy)
    except SignatureMismatch:
        if policy is HashPolicy.STRICT and access.would_pass_compat(account, claim):
            _log.warning(
                "Account %r signs only part of its requests; they pass only where its hash_policy is 'compat'",
                account.username,
            )
        raise


class _PasswordNotSeen(Exception):
    def __init__(self, password: str, password_hash: str) -> None:
        super().__init__()
        self.password = password
        self.password_hash = password_hash


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of a switch.

    Attributes:
        device_id: The device asked about, None where it is asked for by number or by path.
        called: The number that was dialled, None where none was.
        explain: Whether the answer shall say why.
    """

    device_id: int | None
    called: str | None
    path: Path | None
    state: State
    caller: Caller
    call_id: str
    diversion: str
    history_info: str
    diversions_withheld: bool
    is_emergency_callback: bool
    explain: bool


@dataclass(frozen=True, slots=True)
class Calls:
    """What switches can ask about calls, under the operator's rules.

    Attributes:
        database: Where the facts are; a replica will do.
        technologies: Which wins where devices share a name, first wins.
        max_diversions: How often one call may be diverted.
        number_ring_seconds: How long an external number rings.
    """

    database: Database | ReplicaFirst
    technologies: tuple[str, ...]
    max_diversions: int
    number_ring_seconds: int

    async def where_to(self, asked: Asked, switch: SwitchUser, plan: DialPlan) -> Decision:
        """Where a call goes now; one statement, or two where forwards lead further than one device on.

        Raises:
            StorageUnavailable: The database cannot be asked.
        """
        return await self.database.run(lambda connection: self._where_to(connection, asked, switch, plan))

    async def _where_to(self, connection: Connection, asked: Asked, switch: SwitchUser, plan: DialPlan) -> Decision:
        named = [hop.device_id for hop in asked.path.hops] if asked.path else []
        if asked.path and asked.path.current is not None:
            named.append(asked.path.current)
        if asked.device_id is not None:
            named.append(asked.device_id)
        found = await lookups.find(connection, named, called=asked.called, technologies=self.technologies)
        device_id = asked.device_id
        if asked.called is not None:
            device_id = NAMES_NOTHING if found.device_id is None else found.device_id
        question = Question(
            device=device_id,
            state=asked.state,
            caller=asked.caller,
            path=asked.path,
            call_flow_id=new_flow_id(asked.call_id, random=lambda: secrets.token_hex(16)),
            diversion=asked.diversion,
            history_info=asked.history_info,
            diversions_withheld=asked.diversions_withheld,
            is_emergency_callback=asked.is_emergency_callback,
        )
        rules = Rules(
            limit=self.max_diversions,
            number_ring_seconds=self.number_ring_seconds,
            trust_headers=switch.trust_headers,
            domain=switch.domain,
            can_ring=lambda device: bool(plan.device(device.technology, device.name)),
            can_dial_numbers=bool(plan.number("0")),
            trunk=plan.legs.trunk or NO_TRUNK,
        )
        facts = found.facts
        while True:
            try:
                return route(question, facts, rules)
            except FactsMissing as missing:
                more = await lookups.follow(connection, missing.device_id, steps=self.max_diversions)
                facts = Facts({**facts.devices, **more.devices}, {**facts.own_numbers, **more.own_numbers})
