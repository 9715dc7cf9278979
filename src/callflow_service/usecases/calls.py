"""What switches can ask about calls: where one goes now."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address

from asyncpg import Connection

from callflow_service.domain.asked import Asked, SwitchUser
from callflow_service.domain.callflow import NAMES_NOTHING
from callflow_service.domain.dialing import NO_TRUNK, DialPlan
from callflow_service.domain.path import began_at, new_flow_id
from callflow_service.domain.routing import Decision, FactsMissing, Question, Rules, route
from callflow_service.domain.targets import Refusal, TargetRules
from callflow_service.repositories import lookups
from callflow_service.repositories.lookups import Asking
from callflow_service.storage.database import Database
from callflow_service.storage.replica import ReplicaFirst
from callflow_service.usecases.switch_users import SwitchUsers

ReadQuestion = Callable[[SwitchUser], tuple[Asked, DialPlan]]


@dataclass(frozen=True, slots=True)
class Calls:
    """Where calls go, for switches that are let in, under the operator's rules.

    Attributes:
        database: Where the facts are; a replica will do.
        users: The switches that may ask.
        technologies: Which wins where devices share a name, first wins.
        max_diversions: How often one call may be diverted.
        max_legs: How often one call may ring somebody.
        number_ring_seconds: How long an external number rings.
        open_schedules: Which of some schedules, as a lookup brings them, are open at a time.
        refusal: Why the forwards of an account may not go to a number.
    """

    database: Database | ReplicaFirst
    users: SwitchUsers
    technologies: tuple[str, ...]
    max_diversions: int
    max_legs: int
    number_ring_seconds: int
    open_schedules: Callable[[str, datetime], frozenset[int]]
    refusal: Callable[[TargetRules, str], Refusal | None]

    async def where_to(
        self, authorization: str, address: IPv4Address | IPv6Address | None, read: ReadQuestion
    ) -> Decision:
        """Where a call goes now; one statement, or two where forwards lead further than one device on.

        Args:
            authorization: What the switch shows of itself, as HTTP Basic.
            address: Where it asks from.
            read: Reads the question of a known switch, and how that dials: what is wrong with a question is nobody
                else's to know.

        Raises:
            SwitchUnknown: The name or the password is wrong.
            TooManyGuesses: Wrong passwords for this user came from the address too often.
            StorageUnavailable: The database cannot be asked.
        """
        switch = await self.users.admit(authorization, address)
        asked, plan = read(switch)
        return await self.database.run(lambda connection: self.decide(connection, asked, switch, plan))

    async def decide(self, connection: Connection, asked: Asked, switch: SwitchUser, plan: DialPlan) -> Decision:
        """Where a call goes by what a connection reads, for a switch that need not show who it is."""
        named = [hop.device_id for hop in asked.path.hops] if asked.path else []
        if asked.path and asked.path.current is not None:
            named.append(asked.path.current)
        if asked.device_id is not None:
            named.append(asked.device_id)
        began = asked.path.began if asked.path else None
        # To the second, as the marker has it: every question of a call then asks about the same time.
        at = asked.at or (datetime.now(UTC).replace(microsecond=0) if began is None else began_at(began))
        asking = Asking(
            called=asked.called,
            technologies=self.technologies,
            caller=asked.caller.number,
            is_anonymous=asked.caller.is_anonymous,
            open_schedules=lambda stored: self.open_schedules(stored, at),
        )
        found = await lookups.find(connection, named, asking)
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
            at=at,
            diversions_withheld=asked.diversions_withheld,
            is_emergency_callback=asked.is_emergency_callback,
            called=asked.called or "",
        )
        rules = Rules(
            limit=self.max_diversions,
            max_legs=self.max_legs,
            number_ring_seconds=self.number_ring_seconds,
            trust_headers=switch.trust_headers,
            domain=switch.domain,
            can_ring=lambda device: bool(plan.device(device.technology, device.name)),
            can_dial_numbers=plan.dials_numbers,
            trunk=plan.legs.trunk or NO_TRUNK,
            refusal=lambda device, number: self.refusal(device.targets, number),
        )
        facts = found.facts
        while True:
            try:
                return route(question, facts, rules)
            except FactsMissing as missing:
                facts |= await lookups.follow(connection, missing.device_id, asking, steps=self.max_diversions)
