"""What callers can ask about call flows: load the facts, let the caller in, let the domain decide, save."""

from collections.abc import Callable
from dataclasses import dataclass

from callflow_service.domain import access, changing
from callflow_service.domain.access import Claim
from callflow_service.domain.changing import Change, DeviceCallFlow, WantedChange
from callflow_service.domain.history import Face, Origin, Sender
from callflow_service.domain.targets import Refusal, TargetRules
from callflow_service.repositories import callflows
from callflow_service.storage.database import Database
from callflow_service.storage.waking import Tell
from callflow_service.usecases.admission import Admission, check_update_signature


@dataclass(frozen=True, slots=True)
class CallFlows:
    """The call flows in a database, for callers that are let in; `tell` is called after each change."""

    database: Database
    admission: Admission
    refusal: Callable[[TargetRules, str], Refusal | None]
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
            change = changing.decide(account, facts, meant, self.refusal)
            origin = Origin(account.id, Face.MOR, sender)
            await ticket.run(lambda connection: callflows.save(connection, change, origin))
        self.tell()
        return change

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
