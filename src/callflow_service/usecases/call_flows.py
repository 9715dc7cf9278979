"""What callers can ask about call flows: load the facts, let the caller in, let the domain decide, save."""

from dataclasses import dataclass

from asyncpg import Connection

from callflow_service.domain import access, changing
from callflow_service.domain.access import Claim
from callflow_service.domain.changing import Change, DeviceCallFlow, WantedChange
from callflow_service.domain.errors import TargetRefused
from callflow_service.domain.history import Face, Origin, Sender
from callflow_service.domain.targets import HELD, Refusal, TargetRules, counts_numbers
from callflow_service.repositories import callflows, taken_numbers
from callflow_service.repositories.taken_numbers import Alert
from callflow_service.storage.database import Database
from callflow_service.storage.waking import Tell
from callflow_service.usecases.admission import Admission, check_update_signature
from callflow_service.usecases.policing import Policing


@dataclass(frozen=True, slots=True)
class CallFlows:
    """The call flows in a database, for callers that are let in; `tell` is called after each change."""

    database: Database
    admission: Admission
    policing: Policing
    tell: Tell

    async def update(self, claim: Claim, wanted: WantedChange, sender: Sender) -> Change:
        """Change what a device does in one state; two statements.

        Raises:
            CallFlowError: The first thing that is wrong, in the order of MOR's error table; nothing was changed.
            TooManyGuesses: Wrong requests came from the sender's address too often.
            StorageUnavailable: The database cannot be asked.
        """
        client = await self.admission.let_try(claim, sender)
        with self.database.ticket() as ticket:
            facts = await ticket.run(lambda connection: callflows.load_facts(connection, claim.username, wanted))
            account = await self.admission.admit(client, facts.account, claim, sender, check_update_signature)
            meant = wanted.with_plus() if access.is_plus_signed(account, claim) else wanted
            origin = Origin(account.id, Face.MOR, sender)
            try:
                change = changing.decide(account, facts, meant, self.policing)
                if counts_numbers(facts.targets.policies) and changing.number_of(change):
                    change = await ticket.run(lambda connection: self._taken(connection, change, facts.targets, origin))
            except TargetRefused as error:
                alert = Alert(wanted.device_id, wanted.external_number or "", error.refusal.value)
                await ticket.run(lambda connection: taken_numbers.tell(connection, [alert], origin))
                self.tell()
                raise
            await ticket.run(lambda connection: callflows.save(connection, change, origin))
        self.tell()
        return change

    async def _taken(self, connection: Connection, change: Change, rules: TargetRules, origin: Origin) -> Change:
        """The change, with a number that is new to the account taken up, and held where the rules hold it.

        Raises:
            TargetRefused: The account took up too many already.
        """
        number = changing.number_of(change)
        async with connection.transaction():
            past = await self.policing.past(connection, change.device.owner_id, rules, [number])
            outcome = past.take(number)
            if isinstance(outcome, Refusal):
                raise TargetRefused(outcome)
            await past.keep(connection)
            if outcome:
                alert = Alert(change.device.device.id, number, HELD, outcome)
                await taken_numbers.tell(connection, [alert], origin)
        return changing.held(change, outcome) if outcome else change

    async def get(self, claim: Claim, device_id: int, sender: Sender) -> DeviceCallFlow:
        """What a device does in each state; one statement.

        Raises:
            CallFlowError: The first thing that is wrong.
            TooManyGuesses: Wrong requests came from the sender's address too often.
            StorageUnavailable: The database cannot be asked.
        """
        client = await self.admission.let_try(claim, sender)
        facts, flows = await self.database.run(
            lambda connection: callflows.load_flows(connection, claim.username, device_id)
        )
        account = await self.admission.admit(client, facts.account, claim, sender, access.check_get_signature)
        return DeviceCallFlow(changing.usable_device(account, facts.device), flows)
