"""A real Prometheus watches a real service: what it counts is what was sent, also where a worker was killed."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from pydantic import SecretStr
from supervised import supervised

from clusters import free_port, until
from mor_requests import GET, UPDATE, get, update
from own_demo import open_own_demo
from switch_questions import ALICE, SWITCH

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "callflow-alerts.yml"
ROUND = {"ok": 12, "Incorrect hash": 3, "ring": 7, "wrong credentials": 2}
"""What is sent between two looks at the counts."""


def test_the_alert_rules_do_what_their_own_tests_say() -> None:
    for arguments in (("check", "rules", "callflow-alerts.yml"), ("test", "rules", "callflow-alerts.test.yml")):
        done = subprocess.run(["promtool", *arguments], cwd=RULES.parent, capture_output=True, text=True, check=False)
        assert (done.returncode, "SUCCESS" in done.stdout) == (0, True), done.stdout + done.stderr
    example = RULES.parent / "prometheus.example.yml"
    subprocess.run(["promtool", "check", "config", str(example)], check=True, capture_output=True)


def test_each_alert_says_where_its_runbook_is_and_is_tested() -> None:
    runbook = (DEPLOY.parent / "docs" / "operations.md").read_text("utf-8")
    tests = (RULES.parent / "callflow-alerts.test.yml").read_text("utf-8")
    for rule in alerts():
        name = rule["alert"]
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        assert f"\n### {name}\n" in runbook
        assert f"alertname: {name}\n" in tests


async def test_what_prometheus_counts_is_what_was_sent_whichever_worker_was_killed(
    create_database: Callable[..., SecretStr], migrated_url: SecretStr, tmp_path: Path, figure: "Figure"
) -> None:
    async with (
        open_own_demo(create_database, migrated_url) as demo,
        # Its own replica, so that there is something to tell of one.
        supervised(
            demo.url, tmp_path / "log", workers=2, CALLFLOW_READ_DATABASE_URL=demo.url.get_secret_value()
        ) as service,
        watched(service.url, tmp_path) as prometheus,
    ):
        for turn in range(1, 4):
            await send_round(service.url)
            expected = {outcome: number * turn for outcome, number in ROUND.items()}
            await until(lambda expected=expected: is_counted(prometheus, expected))
            if turn < 3:
                service.workers()[0].kill()
                await service.until_started(2 + turn)
        found = {panel: await ask(prometheus, shown(query)) for panel, query in dashboard()}
        assert [panel for panel, samples in found.items() if not samples] == []
        groups = (await prometheus.get("/api/v1/rules")).json()["data"]["groups"]
        assert [(rule["name"], rule["health"]) for rule in groups[0]["rules"]] == [
            (rule["alert"], "ok") for rule in alerts()
        ]
        assert await ask(prometheus, "sum(callflow_pool_size)") == [{"metric": {}, "value": "40"}]
    figure(
        "requests counted by Prometheus after two killed workers, of those sent",
        f"{sum(expected.values())} of {3 * sum(ROUND.values())}",
    )
    figure("dashboard queries with a result", len(found))


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return list(group["rules"])


def dashboard() -> Iterator[tuple[str, str]]:
    """Each query of the dashboard, with the name of its panel."""
    document = json.loads((DEPLOY / "grafana" / "callflow-dashboard.json").read_text("utf-8"))
    for panel in document["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"]


def shown(query: str) -> str:
    """The query as Grafana sends it, all instances chosen."""
    return query.replace("$instance", ".+").replace("$__rate_interval", "1m")


@asynccontextmanager
async def watched(url: str, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A Prometheus that scrapes the service each second, with our rules."""
    scraping = {"job_name": "callflow-service", "static_configs": [{"targets": [url.removeprefix("http://")]}]}
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [scraping],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), "utf-8")
    address = f"127.0.0.1:{free_port()}"
    files = ("--config.file", str(folder / "prometheus.yml"), "--storage.tsdb.path", str(folder / "tsdb"))
    with (folder / "prometheus.log").open("wb") as log:
        program = await asyncio.create_subprocess_exec(
            "prometheus", *files, "--web.listen-address", address, stdout=log, stderr=log
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}") as prometheus:
            await until(lambda: is_ready(prometheus))
            yield prometheus
    finally:
        program.terminate()
        await program.wait()


async def is_ready(prometheus: httpx.AsyncClient) -> bool:
    try:
        return (await prometheus.get("/-/ready")).status_code == 200
    except httpx.TransportError:
        return False


async def ask(prometheus: httpx.AsyncClient, query: str) -> list[dict[str, Any]]:
    """The series that the query gives, each with its value."""
    response = await prometheus.get("/api/v1/query", params={"query": query})
    assert response.status_code == 200, f"{query}: {response.text}"
    return [{"metric": series["metric"], "value": series["value"][1]} for series in response.json()["data"]["result"]]


async def send_round(url: str) -> None:
    # Each by a connection of its own, so that both workers get some.
    for outcome, number in ROUND.items():
        for _ in range(number):
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                match outcome:
                    case "ok":
                        await client.post(UPDATE, data=update(device_id="4", state="busy"))
                    case "Incorrect hash":
                        await client.post(GET, data={**get(), "hash": "wrong"})
                    case "ring":
                        await client.post("/switch/kamailio", data={**ALICE, "device": "4"}, auth=SWITCH)
                    case _:
                        await client.post("/switch/kamailio", data={**ALICE, "device": "4"}, auth=("switch", "no"))


async def is_counted(prometheus: httpx.AsyncClient, expected: dict[str, int]) -> bool:
    """Whether Prometheus has counted exactly that; more would be wrong for ever."""
    calls = 'sum by (outcome) (callflow_calls_total{face="mor"} > 0)'
    lookups = "sum by (decision, why) (callflow_lookups_total > 0)"
    found = {
        # A label that says nothing is left out.
        next(series["metric"][name] for name in ("outcome", "why", "decision") if name in series["metric"]): int(
            series["value"]
        )
        for query in (calls, lookups)
        for series in await ask(prometheus, query)
    }
    timed = await ask(prometheus, 'sum(callflow_request_seconds_count{call!="other"})')
    assert all(found.get(outcome, 0) <= number for outcome, number in expected.items())
    return found == expected and timed[0]["value"] == str(sum(expected.values()))
