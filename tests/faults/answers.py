"""When the clients of one service were answered, and how: what its outages are measured by."""

import time
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer; times are of the monotonic clock, and `is_success` is False where it was told to come again."""

    client: int
    sent: float
    at: float
    is_success: bool


class Answers:
    """The answers that the clients of one service got, in the order they came.

    Attributes:
        strange: Those that were neither success nor a refusal that says to come again.
    """

    def __init__(self, clients: int) -> None:
        self.strange: list[str] = []
        self._clients = clients
        self._answers: list[Answered] = []

    def note(self, client: int, *, sent: float, is_success: bool) -> None:
        """An answer has just come."""
        at = time.monotonic()
        self._answers.append(Answered(client, sent, at, is_success))

    @property
    def refusals(self) -> int:
        return sum(not answer.is_success for answer in self._answers)

    def all_succeeded_since(self, moment: float) -> bool:
        """Whether each client has had a success on what it sent since then."""
        fresh = {answer.client for answer in reversed(self._answers) if answer.is_success and answer.sent > moment}
        return len(fresh) == self._clients

    def first_success_since(self, moment: float) -> float:
        """Seconds until the first success of what was sent since then."""
        return min(answer.at for answer in self._answers if answer.is_success and answer.sent > moment) - moment

    def longest_without_success(self, start: float, end: float) -> float:
        """The longest time, in seconds, in which nobody had a success."""
        successes = [answer.at for answer in self._answers if answer.is_success and start < answer.at < end]
        return max(later - earlier for earlier, later in pairwise([start, *successes, end]))

    def slowest_refusal(self, start: float, end: float) -> float:
        """The longest wait, in seconds, for being told to come again.

        Raises:
            ValueError: Nobody was told so in this time.
        """
        refusals = [answer for answer in self._answers if not answer.is_success and start < answer.at < end]
        return max(answer.at - answer.sent for answer in refusals)
