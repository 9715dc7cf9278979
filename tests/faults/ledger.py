"""Clients that change call flows and keep a ledger: what they asked for, what was answered, what must be there."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any, Final

import httpx
from answers import Answers

from clusters import Cluster, connection_to, fetch_value
from mor_requests import UPDATE, answer, refused, update

PATIENCE_SECONDS: Final = 60
"""After so long a client gives up, which none should."""

STATES: Final = ("before_call", "no_answer", "failed", "busy")

_FIRST_DEVICE: Final = 10_001
_PAUSE_SECONDS: Final = 0.03
_RETRY_SECONDS: Final = 0.2

State = tuple[int, str]
"""A device's id and one of its states."""


def is_unavailable(response: httpx.Response) -> bool:
    """Whether it is the page that tells to come again, with when."""
    unavailable = refused("Service is temporarily unavailable", 503)
    return answer(response) == unavailable and response.headers["retry-after"] == "2"


async def add_devices(cluster: Cluster, number: int) -> range:
    """Give user1 of the demo more devices; their ids."""
    devices = range(_FIRST_DEVICE, _FIRST_DEVICE + number)
    statement = """INSERT INTO device (id, technology, name, owner_id, caller_number, caller_name, ring_seconds)
        SELECT id, 'SIP', id::text, 20, '', '', 60 FROM generate_series($1::bigint, $2::bigint) AS id"""
    await fetch_value(cluster, statement, devices.start, devices.stop - 1)
    return devices


@dataclass(slots=True)
class Attempt:
    """One update that was sent; its number is the external number that it asks for, and in its request's id."""

    number: int
    state: State
    is_acknowledged: bool = False

    @property
    def request_id(self) -> str:
        return f"attempt-{self.number}"


@dataclass(frozen=True, slots=True)
class Losses:
    """What must not be: all of it is empty where nothing acknowledged was lost.

    Attributes:
        without_history: Acknowledged updates that do not have exactly one row in the history.
        saved_twice: Request ids with more than one row in the history.
        overwritten: States whose stored value is older than the last acknowledged one.
        broken_chains: States whose history does not lead from one row to the next and to what is stored.
    """

    without_history: list[int] = field(default_factory=list)
    saved_twice: list[str] = field(default_factory=list)
    overwritten: list[State] = field(default_factory=list)
    broken_chains: list[State] = field(default_factory=list)


class Ledger:
    """What the clients of some services asked for and what they were answered.

    Attributes:
        attempts: Every update that was sent.
        answers: What came back, by the service's address.
    """

    def __init__(self, urls: Sequence[str], *, clients: int) -> None:
        self.attempts: list[Attempt] = []
        self.answers = {url: Answers(clients) for url in urls}
        self._clients = clients
        # Among the shorter ones are emergency numbers, which are no targets.
        self._numbers = count(1_000)

    @property
    def acknowledged(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.is_acknowledged]

    @asynccontextmanager
    async def clients_at_work(self, devices: range) -> AsyncIterator[None]:
        """The clients of each service, each with states of its own, change these meanwhile."""
        every = [(url, client) for url in self.answers for client in range(self._clients)]
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for place, (url, client) in enumerate(every):
                states = [(device, state) for device in devices[place :: len(every)] for state in STATES]
                tasks.create_task(self._keep_changing(url, client, states, stopping))
            try:
                yield
            finally:
                stopping.set()

    async def _keep_changing(self, url: str, client: int, states: list[State], stopping: asyncio.Event) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS) as http:
            for state in cycle(states):
                if stopping.is_set():
                    return
                is_acknowledged = await self._change(http, client, state, self.answers[url])
                await asyncio.sleep(_PAUSE_SECONDS if is_acknowledged else _RETRY_SECONDS)

    async def _change(self, http: httpx.AsyncClient, client: int, state: State, answers: Answers) -> bool:
        attempt = Attempt(next(self._numbers), state)
        self.attempts.append(attempt)
        device, name = state
        number = str(attempt.number)
        values = update(device_id=str(device), state=name, forward_to_device=None, external_number=number)
        sent = time.monotonic()
        try:
            response = await http.post(UPDATE, data=values, headers={"X-Request-ID": attempt.request_id})
        except httpx.TransportError:
            # Cut off: nobody knows whether it was saved.
            return False
        attempt.is_acknowledged = response.status_code == 200 and f"<data>{number}</data>" in response.text
        if attempt.is_acknowledged or is_unavailable(response):
            answers.note(client, sent=sent, is_success=attempt.is_acknowledged)
        else:
            answers.strange.append(f"{response.status_code} {response.text}")
        return attempt.is_acknowledged

    async def losses(self, cluster: Cluster) -> Losses:
        """Hold what the database has against what was acknowledged."""
        async with connection_to(cluster) as connection:
            rows = await connection.fetch("SELECT * FROM callflow_history WHERE kind = 'callflow' ORDER BY id")
            stored = await connection.fetch("SELECT device_id, state, to_jsonb(callflow) AS flow FROM callflow")
        saved: dict[str, list[int]] = defaultdict(list)
        chains: dict[State, list[Any]] = defaultdict(list)
        for row in rows:
            after = json.loads(row["after"])
            saved[row["request_id"]].append(int(after["target_number"]))
            chains[row["device_id"], row["state"]] += (row["before"] and json.loads(row["before"]), after)
        flows = {(row["device_id"], row["state"]): json.loads(row["flow"]) for row in stored}
        losses = Losses(saved_twice=[request_id for request_id, numbers in saved.items() if len(numbers) > 1])
        last_acknowledged: dict[State, int] = {}
        for attempt in self.acknowledged:
            last_acknowledged[attempt.state] = attempt.number
            if saved[attempt.request_id] != [attempt.number]:
                losses.without_history.append(attempt.number)
        for state, number in last_acknowledged.items():
            if state not in flows or int(flows[state]["target_number"]) < number:
                losses.overwritten.append(state)
        for state in {attempt.state for attempt in self.attempts}:
            if not _is_chain([None, *chains[state], flows.get(state)]):
                losses.broken_chains.append(state)
        return losses


def _is_chain(links: list[Any]) -> bool:
    """Whether each `before` is what the row before it left; in turn they are: after, before, after, before ..."""
    return all(after == before for after, before in zip(links[::2], links[1::2], strict=True))
