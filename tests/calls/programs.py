"""The real programs that calls go through: Kamailio with the shipped configuration, and the service as a process."""

import asyncio
import os
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from telephones import DOMAIN, HERE, Caller, FarEnd

SHIPPED: Final = Path(__file__).parents[2] / "switches" / "kamailio"


@dataclass(frozen=True)
class Telephony:
    """A running Kamailio, a telephone to call it with, and everything that it can ring."""

    caller: Caller
    far_end: FarEnd
    log: Path

    @asynccontextmanager
    async def registered(self, name: str, *phones: str) -> AsyncIterator[None]:
        """A device with several phones, each with a user part of its own, for as long as this lasts."""
        contacts = [f"sip:{phone}@{self.far_end.sockets['phone'].address}" for phone in phones]
        for contact in contacts:
            assert await self.caller.register(name, contact) == 200
        try:
            yield
        finally:
            for contact in contacts:
                assert await self.caller.register(name, contact, expires=0) == 200

    def warnings(self) -> list[str]:
        """What Kamailio has said of its questions."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line.partition("callflow: ")[2] for line in lines if "callflow: " in line]


StartTelephony = Callable[..., Awaitable[Telephony]]
SetFlow = Callable[..., Awaitable[None]]
Api = Callable[..., Awaitable[Any]]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind((HERE, 0))
        port: int = bound.getsockname()[1]
        return port


def copy_shipped(folder: Path, *, url: str, username: str, password: str, **settings: str) -> None:
    """The shipped files in a folder like /etc/kamailio, changed and kept from others as their documentation says."""
    connections = (SHIPPED / "callflow-http.cfg").read_text()
    for name, value in {"url": url, "username": username, "password": password}.items():
        connections = _replaced(rf"(?m)^{name} = .*$", f"{name} = {value}", connections)
    main = (SHIPPED / "kamailio.cfg").read_text()
    shared = (SHIPPED / "callflow.cfg").read_text()
    for name, value in {"CALLFLOW_CONNECTIONS": f'"{folder}/callflow-http.cfg"', **settings}.items():
        if name == "CALLFLOW_EXPLAIN":
            shared = _replaced(r"(?m)^##!define CALLFLOW_EXPLAIN$", f"#!define CALLFLOW_EXPLAIN {value}", shared)
        elif name in {"CALLFLOW_REJECTED", "CALLFLOW_REDIRECTED"}:
            shared = _replaced(rf"(?m)^#!trydef {name} .*$", f"#!trydef {name} {value}", shared)
        else:
            main = _replaced(rf"(?m)^#!trydef {name} .*$", f"#!trydef {name} {value}", main)
    for name, text in {"kamailio.cfg": main, "callflow.cfg": shared, "callflow-http.cfg": connections}.items():
        (folder / name).write_text(text)
    folder.chmod(0o755)
    (folder / "callflow-http.cfg").chmod(0o640)
    (folder / "run").mkdir(exist_ok=True)
    if _debians_user():
        shutil.chown(folder / "callflow-http.cfg", "root", "kamailio")
        shutil.chown(folder / "run", "kamailio", "kamailio")


def _replaced(pattern: str, line: str, text: str) -> str:
    changed, count = re.subn(pattern, lambda _: line, text)
    assert count == 1, f"The shipped files were to have one line {pattern}."
    return changed


def _debians_user() -> dict[str, Any]:
    """Whom Debian's unit runs Kamailio as; only root can start it so."""
    if os.geteuid() != 0:
        return {}
    return {"user": "kamailio", "group": "kamailio", "extra_groups": []}


async def start_kamailio(
    running: AsyncExitStack, folder: Path, far_end: FarEnd, connection: dict[str, str], settings: dict[str, str]
) -> tuple[Caller, Path]:
    """Start Kamailio as Debian's unit does, on a free port, and wait until it answers.

    A port that somebody else took is tried again.
    """
    program = shutil.which("kamailio", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.fail(
            "Real calls need Kamailio: Debian packages kamailio, kamailio-extra-modules, kamailio-json-modules and "
            "kamailio-utils-modules."
        )
    log = folder / "kamailio.log"
    for _ in range(3):
        port = free_port()
        wanted = {
            "LISTEN": f"udp:{HERE}:{port}",
            "DOMAIN": f'"{DOMAIN}"',
            "TRUNK": f'"{far_end.sockets["trunk"].address}"',
            "VOICEMAIL": f'"sip:{far_end.sockets["voicemail"].address}"',
            **settings,
        }
        copy_shipped(folder, **connection, **wanted)
        with log.open("wb") as output:
            # -DD and -E: it stays in the foreground and writes its log here. The rest is as under the unit, which makes
            # a runtime directory as well.
            process = await asyncio.create_subprocess_exec(
                program,
                *("-DD", "-E", "-f", folder / "kamailio.cfg", "-m", "256", "-M", "8", "-Y", folder / "run"),
                cwd="/",
                stdout=output,
                stderr=output,
                **_debians_user(),
            )
        caller = await Caller((HERE, port)).open()
        for _ in range(40):
            if process.returncode is not None:
                break
            if await caller.is_answered(within=0.25):
                running.push_async_callback(stop, process)
                running.callback(caller.close)
                return caller, log
        caller.close()
        await stop(process)
    pytest.fail(f"Kamailio was to start and did not:\n{log.read_text(errors='replace')}")


async def stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


@dataclass
class ServiceProcess:
    """The service as a process of its own, to be stopped and frozen."""

    process: asyncio.subprocess.Process
    url: str

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.thaw()
        await stop(self.process)
