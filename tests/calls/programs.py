"""The real programs that calls go through: Kamailio with the shipped configuration, and the service as a process."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from telephones import DOMAIN, HERE, Caller, FarEnd

SHIPPED: Final = Path(__file__).parents[2] / "switches" / "kamailio"


@dataclass(frozen=True)
class Telephony:
    """A running Kamailio, a telephone to call it with, and everything that it can ring."""

    caller: Caller
    far_end: FarEnd
    log: Path

    def warnings(self) -> list[str]:
        """What Kamailio has said of its questions."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line.partition("callflow: ")[2] for line in lines if "callflow: " in line]


StartTelephony = Callable[..., Awaitable[Telephony]]
SetFlow = Callable[..., Awaitable[None]]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind((HERE, 0))
        port: int = bound.getsockname()[1]
        return port


def write_connections(folder: Path, url: str, *, username: str, password: str) -> Path:
    """The shipped file with the service's address, the user and the password changed, as its operator would."""
    changes = {
        "url = http://127.0.0.1:8000": f"url = {url}",
        "username = switch\n": f"username = {username}\n",
        "password = switch-secret": f"password = {password}",
    }
    text = (SHIPPED / "callflow-http.cfg").read_text()
    for shipped, wanted in changes.items():
        assert text.count(shipped) == 1, f"The shipped callflow-http.cfg was to say {shipped!r} once."
        text = text.replace(shipped, wanted)
    file = folder / "callflow-http.cfg"
    file.write_text(text)
    return file


async def start_kamailio(
    running: AsyncExitStack, folder: Path, far_end: FarEnd, defines: dict[str, str]
) -> tuple[Caller, Path]:
    """Start Kamailio on a free port, and wait until it answers; a port that somebody else took is tried again."""
    program = shutil.which("kamailio", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.fail(
            "Real calls need Kamailio: Debian packages kamailio, kamailio-extra-modules, kamailio-json-modules and "
            "kamailio-utils-modules."
        )
    log = folder / "kamailio.log"
    for _ in range(3):
        port = free_port()
        settings = {
            "LISTEN": f"udp:{HERE}:{port}",
            "DOMAIN": f'"{DOMAIN}"',
            "TRUNK": f'"{far_end.sockets["trunk"].address}"',
            "VOICEMAIL": f'"sip:{far_end.sockets["voicemail"].address}"',
            "PROCESSES": "2",
            **defines,
        }
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                program,
                *("-f", SHIPPED / "kamailio.cfg", "-DD", "-E", "-m", "32", "-M", "4", "-w", folder, "-Y", folder),
                *(part for name, value in settings.items() for part in ("-A", f"{name}={value}")),
                stdout=output,
                stderr=output,
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
