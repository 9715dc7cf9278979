"""The program as it serves, and requests to it byte by byte."""

import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import parse_headers
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
from pydantic import SecretStr

from program import PROGRAM, environment

LONG = 60
"""Seconds after which a test gives up; nothing here should take so long."""

HERE = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Served:
    """A service that runs, where it listens, and its log."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def connect(self) -> socket.socket:
        return socket.create_connection((HERE, self.port), timeout=LONG)

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@contextmanager
def served(url: SecretStr, log: Path, *arguments: str, **settings: str) -> Iterator[Served]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*PROGRAM, "serve", "--port", "0", *arguments], env=environment(url, settings), stdout=out, stderr=out
        )
    try:
        found = until(lambda: re.search(r"^Serving on \S+:(\d+),", log.read_text(), re.MULTILINE))
        service = Served(process, int(found[1]), log)
        until(lambda: is_listening(service))
        yield service
    finally:
        process.kill()
        process.wait(LONG)


def until(found: Callable[[], Any]) -> Any:
    """Wait for something that comes by itself, and get it."""
    end = time.monotonic() + LONG
    while not (what := found()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return what


def is_listening(service: Served) -> bool:
    try:
        service.connect().close()
    except ConnectionRefusedError:
        return False
    return True


def is_hung_up_on(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"more")
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def read_answer(connection: socket.socket) -> tuple[int, dict[str, list[str]], str]:
    """Status, headers and body of one answer."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        headers = parse_headers(stream)
        body = stream.read(int(headers["content-length"]))
    return status, {name.lower(): headers.get_all(name, []) for name in headers}, body.decode()


def exchange(service: Served, *parts: bytes) -> bytes:
    """All that is answered until the service closes the connection."""
    with service.connect() as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        while more := connection.recv(65536):
            answer += more
        return answer


def request(path: str, form: dict[str, str], *headers: str) -> bytes:
    body = urlencode(form)
    lines = (f"POST {path} HTTP/1.1", "Host: callflow.test", *headers, f"Content-Length: {len(body)}", "", body)
    return "\r\n".join(lines).encode()


def parsed(raw: bytes) -> tuple[tuple[int, str, str], dict[str, list[str]]]:
    """The one answer in it, and its headers."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers.setdefault(name.lower(), []).append(value)
    return (int(first.split()[1]), headers["content-type"][0], body.decode()), headers


def read_answer_to(service: Served, raw: bytes) -> tuple[int, dict[str, list[str]], str]:
    with service.connect() as connection:
        connection.sendall(raw)
        return read_answer(connection)
