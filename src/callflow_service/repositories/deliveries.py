"""What waits for webhooks: taken from the feed, handed out to one worker at a time, finished."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.access import Account, Role
from callflow_service.domain.webhooks import PATIENCE, Event, event_of, rest_after, subject_of, wait_after
from callflow_service.repositories import changes
from callflow_service.repositories.history import Entry
from callflow_service.repositories.webhooks import EXIST, end
from callflow_service.storage.transactions import run

MOST_WAITING: Final = 20_000
"""How many messages wait for one webhook; what comes on top waits in the feed."""

KEPT: Final = timedelta(days=7)
"""How long a finished message is listed."""

_PAGE: Final = 500
_FULL_REST: Final = timedelta(seconds=5)
_PURGED: Final = 1000

# Webhooks of accounts that may not come in are not served: neither may what they would be told leave.
_OF_WHOM: Final = """
FROM webhook_progress AS progress
JOIN webhook ON webhook.id = progress.webhook_id
JOIN account ON account.id = webhook.account_id
LEFT JOIN account AS owner ON owner.id = account.owner_id"""
_IS_SERVED: Final = """(webhook.enabled AND NOT account.blocked AND account.api_enabled
    AND coalesce(owner.role <> 'reseller' OR owner.api_enabled, true))"""

_TAKE: Final = text(f"""
WITH found AS (
    SELECT progress.webhook_id {_OF_WHOM}
    WHERE {_IS_SERVED}
        AND (progress.held_until IS NULL OR progress.held_until < clock_timestamp())
        AND (progress.rests_until IS NULL OR progress.rests_until <= clock_timestamp())
        AND (progress.position < :head OR EXISTS (
            SELECT FROM webhook_delivery AS delivery
            WHERE delivery.webhook_id = progress.webhook_id AND delivery.due_at <= clock_timestamp()))
    ORDER BY progress.held_until NULLS FIRST
    LIMIT :most
    FOR UPDATE OF progress SKIP LOCKED
)
UPDATE webhook_progress AS progress
SET holder = :holder, held_until = clock_timestamp() + make_interval(secs => :seconds)
FROM found WHERE progress.webhook_id = found.webhook_id
RETURNING progress.webhook_id""")  # noqa: S608 - ours
_NEXT_DUE: Final = text(f"""
SELECT extract(epoch FROM min(greatest(due.at, progress.rests_until, progress.held_until)) - clock_timestamp())::float8
{_OF_WHOM}
CROSS JOIN LATERAL (
    SELECT min(delivery.due_at) AS at FROM webhook_delivery AS delivery
    WHERE delivery.webhook_id = progress.webhook_id AND delivery.due_at IS NOT NULL
) AS due
WHERE due.at IS NOT NULL AND {_IS_SERVED}""")  # noqa: S608 - ours
_HOLD: Final = text(f"""
UPDATE webhook_progress AS held SET held_until = clock_timestamp() + make_interval(secs => :seconds)
FROM (
    SELECT progress.webhook_id, webhook.url, webhook.secret, webhook.events,
        account.id AS account_id, account.username, account.role, account.pbx_addon,
        {_IS_SERVED} AS is_served
    {_OF_WHOM}
    WHERE progress.webhook_id = :webhook
) AS found
WHERE held.webhook_id = found.webhook_id AND held.holder = :holder
RETURNING found.*, held.position, held.failures""")  # noqa: S608 - ours
_RELEASE: Final = text("""
UPDATE webhook_progress SET holder = NULL, held_until = NULL WHERE webhook_id = :webhook AND holder = :holder""")
_WAITING: Final = text("""
SELECT count(*) FROM webhook_delivery WHERE webhook_id = :webhook AND finished_at IS NULL""")
# The first of a subject is due at once, unless another one about it waits still.
_ADD: Final = text("""
INSERT INTO webhook_delivery (webhook_id, event, subject, history_id, body, expires_at, due_at)
SELECT :webhook, new.event, new.subject, new.history_id, new.body, new.expires_at,
    CASE WHEN row_number() OVER (PARTITION BY new.subject ORDER BY new.place) = 1 AND NOT EXISTS (
        SELECT FROM webhook_delivery AS waiting
        WHERE waiting.webhook_id = :webhook AND waiting.subject = new.subject AND waiting.finished_at IS NULL
    ) THEN clock_timestamp() END
FROM unnest(
    CAST(:events AS text[]), CAST(:subjects AS text[]), CAST(:history_ids AS bigint[]), CAST(:bodies AS text[]),
    CAST(:expiries AS timestamptz[])
) WITH ORDINALITY AS new (event, subject, history_id, body, expires_at, place)
ORDER BY new.place""")
_MOVE_ON: Final = text("UPDATE webhook_progress SET position = :position WHERE webhook_id = :webhook")
_DUE: Final = text("""
SELECT id, event, body, attempts, expires_at FROM webhook_delivery
WHERE webhook_id = :webhook AND due_at <= clock_timestamp() ORDER BY due_at, id LIMIT :most""")
_ATTEMPTED: Final = text("""
INSERT INTO webhook_attempt (delivery_id, at, milliseconds, status, problem)
SELECT made.* FROM unnest(
    CAST(:deliveries AS bigint[]), CAST(:moments AS timestamptz[]), CAST(:milliseconds AS integer[]),
    CAST(:statuses AS integer[]), CAST(:problems AS text[])
) AS made (delivery_id, at, milliseconds, status, problem)
JOIN webhook_delivery ON webhook_delivery.id = made.delivery_id AND webhook_delivery.webhook_id = :webhook""")
# What was disabled meanwhile is finished already, and stays so.
_RECORD: Final = text("""
UPDATE webhook_delivery AS delivery
SET attempts = delivery.attempts + 1,
    due_at = CASE WHEN delivery.finished_at IS NULL AND made.outcome IS NULL
        THEN clock_timestamp() + made.wait END,
    finished_at = coalesce(delivery.finished_at, CASE WHEN made.outcome IS NOT NULL THEN clock_timestamp() END),
    outcome = CASE WHEN made.outcome = 'delivered' THEN made.outcome ELSE coalesce(delivery.outcome, made.outcome) END,
    problem = CASE WHEN made.outcome = 'delivered' THEN NULL ELSE coalesce(delivery.problem, made.problem) END
FROM unnest(
    CAST(:deliveries AS bigint[]), CAST(:outcomes AS text[]), CAST(:waits AS interval[]), CAST(:problems AS text[])
) AS made (id, outcome, wait, problem)
WHERE delivery.id = made.id AND delivery.webhook_id = :webhook""")
# The next of a subject is due once the one before it is finished.
_PROMOTE: Final = text("""
UPDATE webhook_delivery SET due_at = clock_timestamp() WHERE id IN (
    SELECT (
        SELECT waiting.id FROM webhook_delivery AS waiting
        WHERE waiting.webhook_id = :webhook AND waiting.subject = finished.subject AND waiting.finished_at IS NULL
        ORDER BY waiting.id LIMIT 1
    )
    FROM webhook_delivery AS finished
    WHERE finished.id = ANY(CAST(:deliveries AS bigint[])) AND finished.finished_at IS NOT NULL
) AND due_at IS NULL AND finished_at IS NULL""")
_EXPIRE: Final = text("""
UPDATE webhook_delivery SET finished_at = clock_timestamp(), outcome = 'given_up', due_at = NULL,
    problem = 'It could not be delivered within 3 days.'
WHERE webhook_id = :webhook AND finished_at IS NULL AND expires_at <= clock_timestamp() AND due_at IS NULL
RETURNING id""")
_RESTS: Final = text("""
UPDATE webhook_progress SET failures = :failures, rests_until = clock_timestamp() + CAST(:rest AS interval)
WHERE webhook_id = :webhook""")
_DISABLE: Final = text("UPDATE webhook SET enabled = false, disabled_because = :because WHERE id = :webhook")
_COUNT: Final = text("SELECT count(*) FROM webhook_delivery WHERE finished_at IS NULL")
_PURGE: Final = text("""
DELETE FROM webhook_delivery WHERE id IN (
    (SELECT id FROM webhook_delivery WHERE finished_at < clock_timestamp() - CAST(:kept AS interval) LIMIT :most)
    UNION ALL
    (SELECT id FROM webhook_delivery WHERE webhook_id NOT IN (SELECT webhook.id FROM webhook) LIMIT :most))""")


@dataclass(frozen=True, slots=True)
class Held:
    """A webhook that this worker alone delivers to for a while."""

    id: int
    url: str
    secret: str
    events: frozenset[str] | None
    account: Account
    position: int
    failures: int
    is_served: bool


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be sent now."""

    id: int
    event: str
    body: str
    attempts: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try: when it began and how long it took; the receiver's status, or what failed before there was one."""

    message: Message
    at: datetime
    milliseconds: int
    status: int | None
    problem: str | None

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver has it."""
        return self.problem is None


async def are_there(session: AsyncSession) -> bool:
    """Whether any webhook is to be told of anything."""
    return bool((await run(session, text(EXIST))).scalar_one())


async def take(session: AsyncSession, holder: str, *, head: int, most: int, seconds: float) -> list[int]:
    """Webhooks that are not at the `head` of the feed or have to be sent something: they are `holder`'s for so long.

    Those that another one holds are passed over.
    """
    return list((await run(session, _TAKE, holder=holder, head=head, most=most, seconds=seconds)).scalars())


async def seconds_until_due(session: AsyncSession) -> float | None:
    """When the next message is due; None where none is."""
    found = (await run(session, _NEXT_DUE)).scalar_one()
    return None if found is None else float(found)


async def hold(session: AsyncSession, webhook_id: int, holder: str, *, seconds: float) -> Held | None:
    """Go on delivering to a webhook, None where it is another worker's by now, or gone."""
    found: Any = (await run(session, _HOLD, webhook=webhook_id, holder=holder, seconds=seconds)).one_or_none()
    if found is None:
        return None
    account = Account(
        id=found.account_id,
        username=found.username,
        role=Role(found.role),
        blocked=False,
        api_enabled=True,
        pbx_addon=found.pbx_addon,
        hash_policy=None,
        api_key="",
        password_hash=None,
    )
    events = None if found.events is None else frozenset(found.events)
    return Held(webhook_id, found.url, found.secret, events, account, found.position, found.failures, found.is_served)


async def release(session: AsyncSession, webhook_id: int, holder: str) -> None:
    """Let any worker deliver to a webhook."""
    await run(session, _RELEASE, webhook=webhook_id, holder=holder)


async def fan_out(session: AsyncSession, held: Held, body_of: Callable[[Event, Entry], str]) -> bool:
    """Take what is new for a webhook from the feed; whether there was anything."""
    waiting = (await run(session, _WAITING, webhook=held.id)).scalar_one()
    if waiting >= MOST_WAITING:
        await run(session, _RESTS, webhook=held.id, failures=held.failures, rest=_FULL_REST)
        return False
    page = await changes.page(session, held.account, after=held.position, limit=_PAGE)
    told = [(event, entry) for entry in page.entries if (event := _event(entry)) and _is_wanted(held, event)]
    if told:
        rows = [entry[0] for _, entry in told]
        await run(
            session,
            _ADD,
            webhook=held.id,
            events=[str(event) for event, _ in told],
            subjects=[subject_of(row.kind, row.resource, row.device_id) for row in rows],
            history_ids=[row.id for row in rows],
            bodies=[body_of(event, entry) for event, entry in told],
            expiries=[row.changed_at + PATIENCE for row in rows],
        )
    if page.cursor > held.position:
        await run(session, _MOVE_ON, webhook=held.id, position=page.cursor)
    return bool(told)


async def due(session: AsyncSession, webhook_id: int, *, most: int) -> list[Message]:
    """What is to be sent now, no two of them about the same subject."""
    return [Message(**row) for row in (await run(session, _DUE, webhook=webhook_id, most=most)).mappings()]


async def record(session: AsyncSession, held: Held, made: Sequence[Attempt]) -> int:
    """Keep what came of some attempts; how many messages were given up by it."""
    finished = [attempt.message.id for attempt in made]
    now = max(attempt.at for attempt in made)
    waits = [wait_after(attempt.message.attempts + 1) for attempt in made]
    outcomes = [
        "delivered" if attempt.is_delivered else "given_up" if now + wait > attempt.message.expires_at else None
        for attempt, wait in zip(made, waits, strict=True)
    ]
    await run(
        session,
        _ATTEMPTED,
        webhook=held.id,
        deliveries=finished,
        moments=[attempt.at for attempt in made],
        milliseconds=[attempt.milliseconds for attempt in made],
        statuses=[attempt.status for attempt in made],
        problems=[attempt.problem for attempt in made],
    )
    problems = ["It could not be delivered within 3 days." if each == "given_up" else None for each in outcomes]
    await run(session, _RECORD, webhook=held.id, deliveries=finished, outcomes=outcomes, waits=waits, problems=problems)
    await run(session, _PROMOTE, webhook=held.id, deliveries=finished)
    if not any(attempt.is_delivered for attempt in made):
        failures = held.failures + 1
        await run(session, _RESTS, webhook=held.id, failures=failures, rest=rest_after(failures))
    elif held.failures:
        await run(session, _RESTS, webhook=held.id, failures=0, rest=timedelta())
    return outcomes.count("given_up")


async def expire(session: AsyncSession, webhook_id: int) -> int:
    """Give up what waited behind others until its time was over; how many those were."""
    return len((await run(session, _EXPIRE, webhook=webhook_id)).all())


async def disable(session: AsyncSession, webhook_id: int, because: str) -> None:
    """Tell a webhook of nothing any more."""
    await run(session, _DISABLE, webhook=webhook_id, because=because)
    await end(session, webhook_id, because)


async def waiting(session: AsyncSession) -> int:
    """How many messages wait, of all webhooks."""
    return int((await run(session, _COUNT)).scalar_one())


async def purge(session: AsyncSession) -> bool:
    """Forget some of what was finished long ago, or was for a webhook that is gone; whether there may be more."""
    found: Any = await run(session, _PURGE, kept=KEPT, most=_PURGED)
    return int(found.rowcount) >= _PURGED


def _event(entry: Entry) -> Event | None:
    row, _ = entry
    return event_of(row.kind, is_new=row.before is None, is_gone=row.after is None)


def _is_wanted(held: Held, event: Event) -> bool:
    return held.events is None or event in held.events
