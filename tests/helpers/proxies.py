"""Real proxies of every kind that a configuration is shipped for, run with it."""

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from clusters import free_port
from nginx import HERE, run_nginx

DEPLOY = Path(__file__).parents[2] / "deploy"


@dataclass(frozen=True, slots=True)
class Kind:
    """A proxy: Debian's package, the shipped file, and how that is read from a folder of the test's own.

    Attributes:
        program: What is run, with `{folder}` for where its file is.
        server: A line or word of the file that names an instance.
        another: What takes its place, for the instances given.
        pages: Where the shipped pages are, as the file has it.
        logs: Where it writes its logs, as the file has it; nothing where that is its output.
        listen: What names its port, as the file has it.
        around: What has to be around the file, for Debian's own files hold that.
    """

    package: str
    file: str
    program: tuple[str, ...]
    server: str
    another: Callable[[str, tuple[str, ...]], str]
    pages: str
    logs: str
    listen: tuple[str, str]
    around: str = "{file}"


def _lines(line: str, upstreams: tuple[str, ...]) -> str:
    own = (line.replace("127.0.0.1:8000", address).replace("one", f"s{at}") for at, address in enumerate(upstreams))
    return "\n".join(own)


def _words(word: str, upstreams: tuple[str, ...]) -> str:
    return word.replace("127.0.0.1:8000", " ".join(upstreams))


_MODULES: Final = (
    *("mpm_event", "authz_core", "alias", "mime", "env", "setenvif", "headers", "unique_id", "reqtimeout"),
    *("proxy", "proxy_http", "proxy_balancer", "slotmem_shm", "lbmethod_byrequests"),
)
_APACHE: Final = "\n".join(
    [
        *(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in _MODULES),
        *("ServerName callflow.test", "ServerRoot {folder}", "DefaultRuntimeDir {folder}", "PidFile {folder}/pid"),
        *("Listen {listen}", "TypesConfig /etc/mime.types", "ErrorLog {folder}/logs/main.log", "LogLevel emerg"),
        *("ServerTokens Prod", "User {user}", "Group {group}", "{file}"),
    ]
)

KINDS: Final = {
    "haproxy": Kind(
        "haproxy",
        "haproxy/callflow.cfg",
        ("haproxy", "-db", "-f", "{folder}/conf"),
        r"^    server one .*$",
        _lines,
        "/etc/haproxy/callflow",
        "",
        ("bind :80", "bind {listen}"),
    ),
    "caddy": Kind(
        "caddy",
        "caddy/Caddyfile",
        ("caddy", "run", "--adapter", "caddyfile", "--config", "{folder}/conf"),
        r"reverse_proxy .* \{",
        _words,
        "/etc/caddy/callflow",
        "/var/log/caddy",
        (":80 {", "http://{listen} {{"),
    ),
    "apache": Kind(
        "apache2",
        "apache/callflow.conf",
        ("apache2", "-d", "{folder}", "-f", "{folder}/conf", "-DFOREGROUND"),
        r"^    BalancerMember .*$",
        _lines,
        "/etc/apache2/callflow",
        "/var/log/apache2",
        ("<VirtualHost *:80>", "<VirtualHost *>"),
        _APACHE,
    ),
}


@asynccontextmanager
async def run_proxy(name: str, folder: Path, *upstreams: str) -> AsyncIterator[tuple[int, Path]]:
    """Run a proxy by its name in front of the addresses given; its port, and where its logs are."""
    if name == "nginx":
        async with run_nginx(folder, *upstreams) as nginx:
            yield nginx.port, nginx.logs
        return
    kind, port, logs = KINDS[name], free_port(), folder / "logs"
    logs.mkdir()
    command = [part.format(folder=folder) for part in kind.program]
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    if shutil.which(command[0], path=path) is None:
        pytest.fail(f"These tests need {command[0]}; on Debian, install the package {kind.package}.")
    environment = os.environ | {"PATH": path, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with tempfile.TemporaryDirectory(prefix="callflow-test-") as pages, (logs / "output").open("wb") as output:
        # The mode of the folder is copied too: Apache's workers are not root, and must get there.
        shutil.copytree(DEPLOY / "pages", pages, dirs_exist_ok=True)
        (folder / "conf").write_text(_configuration(kind, folder, pages, f"{HERE}:{port}", upstreams))
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=output, stderr=output)
        try:
            await _until_listening(process, port, logs)
            yield port, logs
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def _configuration(kind: Kind, folder: Path, pages: str, listen: str, upstreams: tuple[str, ...]) -> str:
    """The shipped file with the test's own port, folders and instances."""
    text = (DEPLOY / kind.file).read_text()
    changes = {kind.listen[0]: kind.listen[1].format(listen=listen), kind.pages: pages}
    if kind.logs:
        changes[kind.logs] = f"{folder}/logs"
    for theirs, ours in changes.items():
        assert theirs in text, f"{kind.file} no longer holds {theirs}"
        text = text.replace(theirs, ours)
    text = re.sub(kind.server, lambda found: kind.another(found[0], upstreams), text, flags=re.MULTILINE)
    values = {"folder": folder, "listen": listen, "user": "root" if os.geteuid() else "www-data"}
    around = kind.around
    for name, value in {**values, "group": values["user"], "file": text}.items():
        around = around.replace(f"{{{name}}}", str(value))
    return around


async def _until_listening(process: asyncio.subprocess.Process, port: int, logs: Path) -> None:
    for _ in range(500):
        if process.returncode is not None:
            pytest.fail(f"The proxy did not start:\n{_read(logs)}")
        try:
            _, writer = await asyncio.open_connection(HERE, port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    pytest.fail("The proxy did not open its port within ten seconds.")


def _read(logs: Path) -> str:
    return "".join(log.read_text() for log in logs.iterdir())
