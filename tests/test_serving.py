"""Connections, worker processes, and how the service ends; all of it on the real program."""

import asyncio
import json
import multiprocessing
import os
import re
import signal
import socket
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from callflow_service.serving.connections import Connection, ServingState
from callflow_service.serving.workers import keep_workers
from callflow_service.settings import Settings
from callflow_service.watching.logs import JsonLines
from callflow_service.web.headers import SECURITY_HEADERS
from mor_requests import GET, UPDATE, get, got, refused, update, updated
from running import (
    HERE,
    LONG,
    Served,
    exchange,
    is_hung_up_on,
    is_listening,
    parsed,
    read_answer,
    read_answer_to,
    request,
    served,
    until,
)

READY = b"GET /health/ready HTTP/1.1\r\nHost: callflow.test\r\n\r\n"
UNREADABLE = refused("Request cannot be read", 400)
JSON = (400, "application/json", '{"detail":"Request cannot be read"}')


@pytest.fixture(scope="module")
def service(demo_url: SecretStr, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(demo_url, tmp_path_factory.mktemp("service") / "log") as running:
        yield running


@pytest.mark.parametrize(
    ("raw", "page"),
    {
        "a space in the query": (f"POST {GET}?u=a b HTTP/1.1\r\n\r\n".encode(), UNREADABLE),
        "a doubled slash": (b"POST //api//device_callflow_get HTTP/1.1\r\n: x\r\n\r\n", UNREADABLE),
        "a broken chunk": (f"POST {UPDATE} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".encode(), UNREADABLE),
        "an address without end": (f"GET {GET}?u=".encode() + b"a" * 65536, UNREADABLE),
        "a header without end": (f"POST {GET} HTTP/1.1\r\nX: ".encode() + b"a" * 65536, UNREADABLE),
        "headers without end": (f"POST {GET} HTTP/1.1\r\n".encode() + b"X: a\r\n" * 13108, UNREADABLE),
        "another path": (b"POST /switch/asterisk?a b HTTP/1.1\r\n\r\n", JSON),
        "a path that only looks like it": (b"POST /apix?a b HTTP/1.1\r\n\r\n", JSON),
        "TLS": (b"\x16\x03\x01\x02\x00\x01", JSON),
        "a proxy's request": (b"CONNECT callflow.test:80 HTTP/1.1\r\n\r\n", JSON),
    }.values(),
)
def test_what_is_no_request_is_told_so_in_the_words_of_who_was_asked(
    service: Served, raw: bytes, page: tuple[int, str, str]
) -> None:
    told, headers = parsed(exchange(service, raw))
    assert told == page
    assert headers["connection"] == ["close"]
    expected = {name.decode(): [value.decode()] for name, value in SECURITY_HEADERS}
    assert {name: headers.get(name) for name in expected} == expected


def test_the_json_api_names_what_was_no_request_in_its_problem_document(service: Served) -> None:
    told, headers = parsed(exchange(service, b"GET /v1/devices?a b HTTP/1.1\r\n\r\n"))
    assert told[:2] == (400, "application/problem+json")
    (name,) = headers["x-request-id"]
    assert json.loads(told[2])["instance"] == name
    assert f'"request_id":"{name}"' in service.log.read_text()


def test_trailers_without_end_are_not_read(service: Served) -> None:
    head = f"POST {GET} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n".encode()
    told, _ = parsed(exchange(service, head + b"X: a\r\n" * 100_000))
    assert told == UNREADABLE


def test_nonsense_behind_a_request_does_not_cost_it_its_answer(service: Served) -> None:
    told, headers = parsed(exchange(service, request(GET, get("100")) + b"nonsense\r\n\r\n"))
    assert (told, headers["connection"]) == (got(device="SIP/101"), ["close"])


def test_a_broken_request_behind_another_is_not_answered_in_its_place(service: Served) -> None:
    broken = f"POST {UPDATE} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".encode()
    with suppress(ConnectionResetError):
        assert exchange(service, request(GET, get("100")) + broken) == b""


def test_who_stays_after_a_refusal_is_hung_up_on(service: Served) -> None:
    with service.connect() as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert read_answer(connection)[0] == 400
        until(lambda: is_hung_up_on(connection))


def test_requests_sent_at_once_are_answered_in_turn(service: Served) -> None:
    both = request(GET, get("100")) + request(GET, get("5"), "Connection: close")
    raw = exchange(service, both)
    assert [page in raw.decode() for page in (got(device="SIP/101")[2], got(device="IAX2/101")[2])] == [True, True]
    assert raw.count(b"HTTP/1.1 200 OK") == 2


def test_a_switchs_time_runs_from_the_first_byte_of_its_question(service: Served) -> None:
    basic = b64encode(b"switch:switch-secret").decode()
    raw = request("/switch/opensips", {"path": "4u.5_slow", "state": "busy"}, f"Authorization: Basic {basic}")
    with service.connect() as connection:
        connection.sendall(raw[:10])
        # Longer than CALLFLOW_SWITCH_TIMEOUT_MS.
        time.sleep(0.5)
        connection.sendall(raw[10:])
        status, _, body = read_answer(connection)
    assert (status, json.loads(body)["action"], json.loads(body)["cause"]) == (200, "end", "486")
    until(lambda: '"outcome":"carry on: out of time"' in service.log.read_text())


UPGRADE = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAA")


def test_a_client_that_asks_for_http2_is_answered_without(service: Served) -> None:
    raw = request(GET, get("100"), *UPGRADE)
    told, headers = parsed(exchange(service, raw[:-5], raw[-5:]))
    assert (told, headers["connection"]) == (got(device="SIP/101"), ["close"])


def test_a_client_that_asks_for_http2_may_send_its_body_in_chunks(service: Served) -> None:
    head, _, body = request(GET, get("100"), *UPGRADE).partition(b"\r\n\r\n")
    head = re.sub(rb"Content-Length: .*", b"Transfer-Encoding: chunked", head)
    told, _ = parsed(exchange(service, head + b"\r\n\r\n%x\r\n%s\r\n" % (len(body), body), b"0\r\n\r\n"))
    assert told == got(device="SIP/101")


def test_a_client_that_asks_for_http2_needs_no_body(service: Served) -> None:
    raw = READY.replace(b"\r\n\r\n", "\r\n".join(("", *UPGRADE, "", "")).encode())
    told, _ = parsed(exchange(service, raw))
    assert told == (200, "application/json", '{"status":"ok"}')


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_query_that_was_sent_as_it_was_typed_is_read(service: Served, encoding: str, pieces: int) -> None:
    values = update(forward_to_device=None, external_number="370", custom="Büro")
    query = "&".join(f"{name}={value}" for name, value in values.items()).encode(encoding)
    raw = b"POST %s?%s HTTP/1.1\r\nConnection: close\r\n\r\n" % (UPDATE.encode(), query)
    cut = raw.index(b"B") + 1
    told, _ = parsed(exchange(service, *([raw] if pieces == 1 else [raw[:cut], raw[cut:]])))
    assert told == updated(data="370", callerid_type="Custom", callerid_data="Büro")


def test_a_body_that_comes_in_pieces_is_waited_for(service: Served) -> None:
    raw = request(GET, get("100"), "Connection: close")
    with service.connect() as connection:
        for byte in raw:
            connection.sendall(bytes([byte]))
        status, headers, body = read_answer(connection)
    assert (status, headers["content-type"][0], body) == got(device="SIP/101")


def test_a_service_that_is_told_to_end_answers_on_and_says_so(demo_url: SecretStr, tmp_path: Path) -> None:
    with served(demo_url, tmp_path / "log", CALLFLOW_DRAIN_SECONDS="2") as service, service.connect() as kept:
        kept.sendall(READY)
        assert (read_answer(kept)[0], read_answer_to(service, READY)[1].get("connection")) == (200, None)
        service.process.terminate()
        until(lambda: read_answer_to(service, READY)[0] == 503)
        kept.sendall(request(GET, get("100")))
        status, headers, body = read_answer(kept)
        assert (status, headers["content-type"][0], body) == got(device="SIP/101")
        assert (headers["connection"], kept.recv(1)) == (["close"], b"")
        status, headers, body = read_answer_to(service, READY)
        assert (status, headers["connection"]) == (503, ["close"])
        assert body == '{"status":"unavailable","detail":"The service is ending."}'
        until(lambda: not is_listening(service))
        assert service.process.wait(LONG) == 0


def test_a_request_in_work_is_finished_when_the_service_ends(demo_url: SecretStr, tmp_path: Path) -> None:
    with served(demo_url, tmp_path / "log", CALLFLOW_DRAIN_SECONDS="1") as service, service.connect() as slow:
        raw = request(GET, get("100"))
        slow.sendall(raw[:-5])
        service.process.terminate()
        until(lambda: not is_listening(service))
        slow.sendall(raw[-5:])
        status, headers, body = read_answer(slow)
        assert (status, headers["content-type"][0], body) == got(device="SIP/101")
        assert service.process.wait(LONG) == 0


@pytest.mark.parametrize("signals", [[signal.SIGTERM, signal.SIGTERM], [signal.SIGINT]])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_who_cannot_wait_says_so_twice_or_interrupts(
    demo_url: SecretStr, tmp_path: Path, signals: list[signal.Signals], workers: str
) -> None:
    with served(demo_url, tmp_path / "log", "--workers", workers, CALLFLOW_DRAIN_SECONDS="60") as service:
        for number in signals:
            service.process.send_signal(number)
            # Two of the same that come before the first was taken are one, on a busy machine too.
            time.sleep(1)
        assert service.process.wait(45) == 0
    assert "Traceback" not in service.log.read_text()


def test_a_killed_worker_is_replaced_and_none_outlives_who_keeps_them(demo_url: SecretStr, tmp_path: Path) -> None:
    with served(demo_url, tmp_path / "log", "--workers", "2") as service:
        until(lambda: service.log.read_text().count("Application startup complete") == 2)
        first = service.workers()
        first[0].kill()
        second = until(lambda: len(found := service.workers()) == 2 and found != first and found)
        assert first[1] in second
        assert read_answer_to(service, READY)[0] == 200
        until(lambda: service.log.read_text().count("Application startup complete") == 3)
        service.process.kill()
        assert psutil.wait_procs(second, LONG)[1] == []


class Broken(Connection):
    """A connection with a defect, as if a name of uvicorn's were another one now."""

    def on_header(self, name: bytes, value: bytes) -> None:
        raise AttributeError(f"secret {name!r} {value!r}")


async def test_a_defect_of_ours_while_a_request_is_read_is_not_told_as_the_clients_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = uvicorn.Config(FastAPI(), http=Broken, log_config=None)
    listening = await asyncio.get_running_loop().create_server(lambda: Broken(config, ServingState(), {}), HERE, 0)
    async with listening:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        writer.write(request(GET, get("100")))
        told, _ = parsed(await reader.read())
        writer.close()
    assert told == (500, "application/json", '{"detail":"Internal error"}')
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    line = json.loads(JsonLines().format(record))
    assert (line["event"], line["error"]) == ("defect", "AttributeError")
    assert line["trace"][-1].endswith("on_header")
    assert not [record for record in caplog.records if record.getMessage() == "not a request"]


@pytest.mark.parametrize("address", ["http://callflow.test", "?u=a", "callflow.test:80"])
def test_an_address_that_uvicorn_cannot_take_apart_is_the_clients_fault(service: Served, address: str) -> None:
    told, _ = parsed(exchange(service, f"GET {address} HTTP/1.1\r\nHost: callflow.test\r\n\r\n".encode()))
    assert told == JSON


def test_an_ipv4_proxy_is_trusted_where_the_service_listens_on_ipv6_too(demo_url: SecretStr, tmp_path: Path) -> None:
    settings = {"CALLFLOW_HOST": "::", "CALLFLOW_TRUSTED_PROXIES": HERE, "CALLFLOW_GUESS_LIMIT": "1/hour"}
    with served(demo_url, tmp_path / "log", **settings) as service:
        # A guesser behind the proxy does not lock out others behind it.
        guess = request(GET, {**get("100"), "hash": "wrong"}, "X-Forwarded-For: 192.0.2.7", "Connection: close")
        assert [parsed(exchange(service, guess))[0][0] for _ in range(2)] == [200, 429]
        right = request(GET, get("100"), "X-Forwarded-For: ::ffff:192.0.2.8", "Connection: close")
        assert parsed(exchange(service, right))[0] == got(device="SIP/101")
        until(lambda: service.log.read_text().count('"event":"request"') == 3)
        lines = [json.loads(line) for line in service.log.read_text().splitlines() if '"event":"request"' in line]
    assert [line["client"] for line in lines] == ["192.0.2.7", "192.0.2.7", "192.0.2.8"]


def dies_at_its_start(settings: Settings, _: socket.socket) -> None:
    with (settings.data_dir / "starts").open("a") as starts:
        starts.write(f"{time.monotonic()}\n")
    os.kill(os.getpid(), signal.SIGKILL)


def keep_dying_workers(folder: Path) -> None:
    with socket.create_server((HERE, 0)) as listening:
        keep_workers(1, dies_at_its_start, Settings(data_dir=folder), listening)


def test_a_worker_that_keeps_dying_is_replaced_after_ever_longer_pauses(tmp_path: Path) -> None:
    keeper = multiprocessing.get_context("spawn").Process(target=keep_dying_workers, args=(tmp_path,))
    keeper.start()
    file = tmp_path / "starts"
    starts = until(
        lambda: file.exists() and len(lines := file.read_text().splitlines()) >= 8 and list(map(float, lines))
    )
    keeper.terminate()
    keeper.join(LONG)
    assert keeper.exitcode == 0
    pauses = [later - earlier for earlier, later in pairwise(starts)]
    # A busy machine makes them longer, nothing makes them shorter.
    assert all(pause >= least for pause, least in zip(pauses, (0, 0, 0, 0.5, 1, 2), strict=False))


def cannot_start(_: Settings, __: socket.socket) -> None:
    sys.exit(3)


def test_workers_that_cannot_start_are_not_started_again() -> None:
    with socket.create_server((HERE, 0)) as listening:
        assert keep_workers(2, cannot_start, Settings(), listening) == 3
