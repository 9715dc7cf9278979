"""Start the programs that are compared, each with one worker on a port of its own, and stop them."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from world import address

_HERE: Final = Path(__file__).parent
_START_SECONDS: Final = 30.0
_SERVE: Final = (sys.executable, "-m", "callflow_service.cli", "serve")
_UVICORN: Final = (sys.executable, "-m", "uvicorn", "--app-dir", str(_HERE), "--no-access-log", "--log-level", "error")


@dataclass(frozen=True, slots=True)
class Program:
    """A program that runs and answers; `start_seconds` is how long it took until it did."""

    url: str
    process: subprocess.Popen[bytes]
    start_seconds: float

    @property
    def rss_mb(self) -> float:
        """The memory that it has, in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    @property
    def cpu_seconds(self) -> float:
        """The processor time that it has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def ours(database: SecretStr) -> Iterator[Program]:
    """The service, as shipped; ready once its health check says so. What it logs goes nowhere."""
    environment = {"CALLFLOW_DATABASE_URL": database.get_secret_value(), "CALLFLOW_DRAIN_SECONDS": "0"}
    with _started(_SERVE, environment, path="/health/ready") as program:
        yield program


@contextmanager
def written_as(name: str, database: SecretStr) -> Iterator[Program]:
    """One of the programs beside this file, by its name."""
    with _started((*_UVICORN, f"{name}:app"), {"BENCH_DATABASE_URL": address(database)}, path="/") as program:
        yield program


@contextmanager
def _started(command: tuple[str, ...], environment: dict[str, str], *, path: str) -> Iterator[Program]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    started = time.perf_counter()
    process = subprocess.Popen((*command, "--port", str(port)), env=os.environ | environment, stdout=subprocess.DEVNULL)
    try:
        _wait_until_it_answers(url + path, process)
        yield Program(url, process, time.perf_counter() - started)
    finally:
        process.terminate()
        process.wait()


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError as error:
            # The others have nothing at this address, but they answer.
            if error.code == 404:  # noqa: PLR2004 - an HTTP status
                return
        except OSError:
            pass
        else:
            return
        time.sleep(0.02)
    raise RuntimeError(f"{url} does not answer")
