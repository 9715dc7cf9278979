"""What switches can ask about calls: where one goes now."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from asyncpg import Connection

from callflow_service.domain.asked import Asked, SwitchUser
from callflow_service.domain.callflow import NAMES_NOTHING
from callflow_service.domain.dialing import NO_TRUNK, DialPlan
from callflow_service.domain.path import new_flow_id
from callflow_service.domain.routing import Decision, Facts, FactsMissing, Question, Rules, route
from callflow_service.repositories import lookups
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
        number_ring_seconds: How long an external number rings.
    """

    database: Database | ReplicaFirst
    users: SwitchUsers
    technologies: tuple[str, ...]
    max_diversions: int
    number_ring_seconds: int

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
