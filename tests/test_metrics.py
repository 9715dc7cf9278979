"""What `/metrics` tells is what was sent, whatever was sent and whichever worker answered."""

import asyncio
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from callflow_service import __version__
from callflow_service.domain.targets import Refusal
from callflow_service.watching.metrics import Metrics
from clusters import free_port, until
from encryption import KEY
from mor_requests import GET, UPDATE, StartService, answer, get, refused, update
from own_demo import OwnDemo, open_own_demo
from switch_questions import ALICE, NONE, SWITCH, Flows, answered, ask

Samples = dict[tuple[str, str], float]

LABELS = ("face", "switch", "call", "le", "decision", "outcome", "why", "kind", "state", "version")


@pytest_asyncio.fixture
async def demo(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> AsyncIterator[OwnDemo]:
    async with open_own_demo(create_database, migrated_url) as demo:
        yield demo


async def scraped(service: httpx.AsyncClient) -> Samples:
    """Each sample that is not 0, by its name and its labels' values."""
    response = await service.get("/metrics")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return {
        (sample.name, " | ".join(sample.labels[name] for name in LABELS if name in sample.labels)): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if sample.value
    }


def counted(samples: Samples) -> Samples:
    """The counters, without what is asked for by the tests themselves."""
    return {key: value for key, value in samples.items() if key[0].endswith("_total") and "other" not in key[1]}


async def test_calls_and_lookups_are_counted_by_what_came_of_them(start_service: StartService, demo: OwnDemo) -> None:
    service = await start_service(demo.url)
    for _ in range(3):
        await service.post(UPDATE, data=update())
    await service.post(UPDATE, data={**update(), "hash": "wrong"})
    await service.post(UPDATE, data=update(u="nobody"))
    await service.post(UPDATE, content="{", headers={"Content-Type": "application/json"})
    await service.post(UPDATE, content=b"x" * 70_000)
    await service.post("/api//device_callflow_get/", data=get())
    await service.get(GET, params=get())
    await Flows(demo.database).forward(5, to=4)
    for _ in range(2):
        await ask(service, "kamailio", device="4")
    assert await ask(service, device="123456") == answered("none")
    await service.post("/switch/asterisk", data={**ALICE, "device": "4"}, auth=("switch", "wrong"))
    await service.post("/switch/asterisk", data=ALICE, auth=SWITCH)
    samples = await scraped(service)
    assert counted(samples) == {
        ("callflow_calls_total", "mor | device_callflow_update | ok"): 3,
        ("callflow_calls_total", "mor | device_callflow_update | Incorrect hash"): 1,
        ("callflow_calls_total", "mor | device_callflow_update | Bad login"): 1,
        (
            "callflow_calls_total",
            "mor | device_callflow_update | Request body is not the JSON that its Content-Type says",
        ): 1,
        ("callflow_calls_total", "mor | device_callflow_update | Request body is larger than 64 KiB"): 1,
        ("callflow_calls_total", "mor | device_callflow_get | ok"): 1,
        ("callflow_calls_total", "mor | device_callflow_get | GET Requests are disabled"): 1,
        ("callflow_lookups_total", "kamailio | forward | "): 2,
        ("callflow_loops_cut_total", "kamailio"): 2,
        ("callflow_lookups_total", "opensips | none | "): 1,
        ("callflow_lookups_total", "asterisk | carry_on | wrong credentials"): 1,
        ("callflow_lookups_total", "asterisk | carry_on | no device, number or path"): 1,
    }
    seconds = {call: value for (name, call), value in samples.items() if name == "callflow_request_seconds_count"}
    assert seconds == {
        "device_callflow_update": 7,
        "device_callflow_get": 2,
        "switch.kamailio": 2,
        "switch.opensips": 1,
        "switch.asterisk": 2,
    }
    assert samples["callflow_build_info", __version__] == 1
    assert samples["callflow_pool_size", ""] == 10


async def test_two_workers_count_together(demo_url: SecretStr, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    environment |= {
        "CALLFLOW_DATABASE_URL": demo_url.get_secret_value(),
        "CALLFLOW_ENCRYPTION_KEYS": KEY.get_secret_value(),
        "CALLFLOW_DRAIN_SECONDS": "0",
        "TMPDIR": str(tmp_path),
    }
    port = str(free_port())
    program = (sys.executable, "-m", "callflow_service.cli", "serve", "--workers", "2", "--port", port)
    log_file = tmp_path / "log"
    with log_file.open("wb") as log:
        service = await asyncio.create_subprocess_exec(*program, env=environment, stdout=log, stderr=log)
    try:
        await until(lambda: have_begun(log_file), seconds=60)
        for number in range(1, 13):
            # By a connection of its own, which whichever worker takes.
            transport = httpx.AsyncHTTPTransport(retries=5)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", transport=transport) as client:
                assert answer(await client.post(GET, data=get(u="nobody"))) == refused("User was not found")
                await until(lambda client=client, number=number: has_counted(client, number))
    finally:
        service.terminate()
        assert await service.wait() == 0
    assert shared_files(tmp_path) == []


async def have_begun(log: Path) -> bool:
    """Whether two workers answer."""
    return (await asyncio.to_thread(log.read_bytes)).count(b"Application startup complete") == 2


def shared_files(folder: Path) -> list[Path]:
    return list(folder.glob("callflow-metrics-*/*"))


async def has_counted(client: httpx.AsyncClient, number: int) -> bool:
    """Whether that many calls are counted; their line is written, and they are counted, after they are answered."""
    found = counted(await scraped(client))
    assert set(found.values()) <= {number - 1, number}
    return found == {("callflow_calls_total", "mor | device_callflow_get | User was not found"): number}


async def test_refusals_are_counted_by_their_kind(start_service: StartService, demo: OwnDemo) -> None:
    service = await start_service(demo.url, guess_limit="1/hour", max_in_flight=1, database_timeout_ms=20_000)
    assert answer(await service.post(UPDATE, data={**update(), "hash": "wrong"})) == refused("Incorrect hash")
    for _ in range(2):
        assert (await service.post(UPDATE, data=update())).status_code == 429
    for status in (401, 429):
        response = await service.post("/switch/opensips", data={**ALICE, "device": "4"}, auth=("nobody", "wrong"))
        assert response.status_code == status
    async with demo.database.transaction():
        await demo.database.execute("LOCK TABLE device")
        waiting = asyncio.create_task(service.post(GET, data=get(u="reseller", key="reseller-key")))
        await until(lambda: waits_for_a_lock(demo))
        assert (await service.post(GET, data=get(u="legacy", key="legacy-secret"))).status_code == 503
        assert await ask(service, device="4") == NONE
    await waiting
    samples = counted(await scraped(service))
    assert samples["callflow_guesses_refused_total", "account"] == 2
    assert samples["callflow_guesses_refused_total", "switch_user"] == 1
    assert samples["callflow_lookups_total", "opensips | carry_on | too many wrong credentials"] == 1
    assert samples["callflow_lookups_total", "opensips | carry_on | overloaded"] == 1
    assert samples["callflow_refused_overload_total", ""] == 2


async def waits_for_a_lock(demo: OwnDemo) -> bool:
    statement = """SELECT EXISTS (
        SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"""
    return bool(await demo.database.fetchval(statement))


async def test_a_database_that_is_away_has_one_outcome_whatever_was_wrong_with_it(
    start_service: StartService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "callflow_service.request")
    service = await start_service(SecretStr("postgresql://nobody@127.0.0.1:1/nowhere"))
    await service.post(UPDATE, data=update())
    await service.post("/switch/opensips", data={**ALICE, "device": "4"}, auth=SWITCH)
    lines = [record.__dict__["fields"] for record in caplog.records if record.name == "callflow_service.request"]
    assert [(line["outcome"], line["detail"]) for line in lines] == [
        ("database unavailable", "ConnectionRefusedError"),
        ("carry on: database unavailable", "switch users"),
    ]
    assert counted(await scraped(service)) == {
        ("callflow_calls_total", "mor | device_callflow_update | database unavailable"): 1,
        ("callflow_lookups_total", "opensips | carry_on | database unavailable"): 1,
    }


async def test_no_text_of_a_caller_becomes_a_label(start_service: StartService, demo: OwnDemo) -> None:
    service = await start_service(demo.url)
    before = (await service.get("/metrics")).text.count("\n")
    for number in range(20):
        wild = f"canary{number}"
        headers = {"X-Request-ID": wild, "Host": wild, "User-Agent": wild}
        await service.post(f"/billing/api/{wild}", data={"u": wild}, headers=headers)
        await service.post(f"{UPDATE}%3Fp={wild}", params={"p": wild})
        await service.request(wild.upper(), UPDATE)
        await service.post(UPDATE, data=update(u=wild, p=wild, custom=wild), headers=headers)
        await service.post(UPDATE, content=wild, headers={"Content-Type": wild})
        await service.post("/switch/kamailio", data={"device": wild, "state": wild}, auth=(wild, wild))
        await service.post("/switch/kamailio", data={"device": wild, "state": wild}, auth=SWITCH)
        await service.post(f"/switch/{wild}", auth=SWITCH)
    text = (await service.get("/metrics")).text
    assert "canary" not in text.lower()
    # What came new: three outcomes, four kinds of strange requests, and two calls' buckets, sum and count.
    assert text.count("\n") - before < 60


async def test_metrics_can_be_closed(start_service: StartService, demo_url: SecretStr) -> None:
    service = await start_service(demo_url, metrics_enabled=False)
    response = await service.get("/metrics")
    assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})
    assert (await service.get("/openapi.json")).status_code == 200


async def test_the_explorer_and_its_document_can_be_closed(start_service: StartService, demo_url: SecretStr) -> None:
    service = await start_service(demo_url, docs_enabled=False)
    for path in (
        *("/", "/docs", "/docs/explorer.js", "/redoc", "/openapi.json"),
        "/static-offline-docs/swagger-ui-bundle.js",
    ):
        response = await service.get(path)
        assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})
    assert (await service.get("/metrics")).status_code == 200
    assert (await service.post(UPDATE, data=update())).status_code == 200


def test_a_replica_that_is_away_is_infinitely_far_behind() -> None:
    metrics = Metrics({}, has_replica=True)
    for lag, up, shown in ((2.5, "1.0", "2.5"), (None, "0.0", "+Inf"), (0.0, "1.0", "0.0")):
        metrics.observe_replica(lag)
        text = metrics.exposition().decode()
        assert re.findall(r"^callflow_replica_(\w+) (.+)$", text, re.MULTILINE) == [("lag_seconds", shown), ("up", up)]


def test_without_a_replica_nothing_is_said_of_one() -> None:
    assert b"replica" not in Metrics({}, has_replica=False).exposition()


def test_what_alerts_look_at_is_there_before_it_happens() -> None:
    text = Metrics({"device_callflow_get": "mor", "switch.opensips": "switch"}, has_replica=False).exposition().decode()
    lines = [line for line in text.splitlines() if line.endswith(" 0.0") and "_total" in line]
    assert Counter(line.partition("{")[0].partition(" ")[0] for line in lines) == {
        # ok or the six decisions, and the four troubles; a defect of everything else.
        "callflow_calls_total": 1 + 4 + 1,
        "callflow_lookups_total": 6 + 4,
        "callflow_loops_cut_total": 1,
        "callflow_guesses_refused_total": 2,
        "callflow_targets_refused_total": len(Refusal),
        "callflow_refused_overload_total": 1,
        # delivered, failed, given up.
        "callflow_webhook_messages_total": 3,
    }
