"""Which numbers an account may forward to, by what the world knows of numbers and what the account did before."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from asyncpg import Connection

from callflow_service.almanac.numbers import country_of, read_number
from callflow_service.domain.targets import Refusal, TakenNumber, TargetRules, counts_numbers, refusal_of, take
from callflow_service.repositories import taken_numbers

_NOBODY_KNOWS: Final = "?"
"""Where a number leads that goes somewhere, as a country of its own: to write it oddly is no way round a hold."""


@dataclass(frozen=True, slots=True)
class Policing:
    """The operator's word on numbers; `country` is where accounts dial that say nothing of it."""

    country: str | None

    def __call__(self, rules: TargetRules, number: str) -> Refusal | None:
        """Why a number may not be forwarded to under an account's rules."""
        return refusal_of(read_number, self.country, rules, number)

    async def past(
        self, connection: Connection, account_id: int, rules: TargetRules, numbers: Collection[str]
    ) -> "Past":
        """What the account took up before, where its rules ask for it; others wait until the transaction ends.

        Args:
            connection: In the transaction in which the account takes up numbers.
            account_id: The account.
            rules: What holds for it.
            numbers: Those that it is to take up. The history is looked at where it seems that one is new.
        """
        if not numbers or not counts_numbers(rules.policies):
            return Past(self, account_id, rules, counts=False)
        kept, in_flows = await taken_numbers.taken_alone(connection, account_id)
        taken = self._together(rules, kept, ((number, None) for number in in_flows))
        known = {each.number for each in taken}
        if any(self.named(rules, number, None).number not in known for number in numbers):
            taken = self._together(rules, taken, await taken_numbers.in_history(connection, account_id))
        return Past(self, account_id, rules, taken)

    def _together(
        self, rules: TargetRules, known: Collection[TakenNumber], more: Iterable[tuple[str, datetime | None]]
    ) -> list[TakenNumber]:
        found = {each.number: each for each in (self.named(rules, number, since) for number, since in more)}
        return list((found | {each.number: each for each in known}).values())

    def named(self, rules: TargetRules, number: str, since: datetime | None) -> TakenNumber:
        """A number, however it is written, and where it leads."""
        read = read_number(number, rules.country or self.country)
        written = f"+{read.international}" if read.international else read.dialled
        countries = filter(None, map(country_of, (read.international, *read.readings)))
        return TakenNumber(written, next(countries, _NOBODY_KNOWS if read.readings else ""), since)


@dataclass(slots=True)
class Past:
    """What an account took up before, and takes up now."""

    policing: Policing
    account_id: int
    rules: TargetRules
    taken: list[TakenNumber] = field(default_factory=list)
    new: list[TakenNumber] = field(default_factory=list)
    counts: bool = True

    def take(self, number: str) -> Refusal | datetime | None:
        """Take up a number: why that cannot be, until when it is held, or nothing."""
        if refused := self.policing(self.rules, number):
            return refused
        if not self.counts:
            return None
        now = datetime.now(UTC)
        wanted = self.policing.named(self.rules, number, now)
        outcome = take(self.rules.policies, wanted, self.taken, now)
        if not isinstance(outcome, Refusal) and all(each.number != wanted.number for each in self.taken):
            self.taken.append(wanted)
            self.new.append(wanted)
        return outcome

    async def keep(self, connection: Connection) -> None:
        """Keep what is new, in the transaction that it was asked for in."""
        if self.new:
            await taken_numbers.add(connection, self.account_id, self.new)
