"""A real nginx, run with the shipped configuration."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from clusters import free_port

SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx"
HERE = "127.0.0.1"

_SERVER = re.compile(r"server 127\.0\.0\.1:8000( [^;]*)?;")


@dataclass(frozen=True, slots=True)
class Nginx:
    """A running nginx: its port, and where it writes its logs."""

    port: int
    logs: Path


@asynccontextmanager
async def run_nginx(folder: Path, *upstreams: str) -> AsyncIterator[Nginx]:
    """Run it on a free port in front of the addresses given, with all of its files below an empty folder."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.fail("These tests need nginx on the PATH; on Debian, install the package nginx-light.")
    port = free_port()
    main = _write_configuration(folder, port, upstreams)
    process = await asyncio.create_subprocess_exec(
        *(program, "-p", folder, "-c", main, "-e", "stderr"), stderr=asyncio.subprocess.PIPE
    )
    try:
        await _until_listening(process, port)
        yield Nginx(port, folder / "logs")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def _write_configuration(folder: Path, port: int, upstreams: tuple[str, ...]) -> Path:
    """Lay the shipped files out below `folder`, with its own port, its own log folder and the upstreams given."""
    for name in ("conf.d", "callflow", "logs", "temporary"):
        (folder / name).mkdir()
    changes = {"listen 80;": f"listen {HERE}:{port};", "/var/log/nginx/": f"{folder}/logs/"}
    unused = set(changes)
    shipped = {
        "conf.d": ("callflow.conf", "upstream.conf"),
        "callflow": sorted(f"callflow/{file.name}" for file in (SHIPPED / "callflow").iterdir()),
    }
    for target, sources in shipped.items():
        for source in sources:
            text = (SHIPPED / source).read_text()
            for theirs, ours in changes.items():
                if theirs in text:
                    unused.discard(theirs)
                    text = text.replace(theirs, ours)
            if source == "upstream.conf":
                line = _SERVER.search(text)
                assert line, "deploy/nginx/upstream.conf no longer says where the service listens"
                lines = (f"server {address}{line[1] or ''};" for address in upstreams)
                text = text.replace(line[0], "\n    ".join(lines))
            (folder / target / Path(source).name).write_text(text)
    assert not unused, f"deploy/nginx no longer holds {unused}"
    main = folder / "nginx.conf"
    # The least that is around conf.d; a worker of root's nginx keeps to its user, since the folder is that one's.
    main.write_text(f"""\
daemon off;
{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/logs/main.log notice;
events {{ worker_connections 2048; }}
http {{
    client_body_temp_path {folder}/temporary/body;
    proxy_temp_path {folder}/temporary/proxy;
    fastcgi_temp_path {folder}/temporary/fastcgi;
    uwsgi_temp_path {folder}/temporary/uwsgi;
    scgi_temp_path {folder}/temporary/scgi;
    include conf.d/*.conf;
}}
""")
    return main


async def _until_listening(process: asyncio.subprocess.Process, port: int) -> None:
    for _ in range(500):
        if process.returncode is not None:
            _, said = await process.communicate()
            pytest.fail(f"nginx did not start:\n{said.decode()}")
        try:
            _, writer = await asyncio.open_connection(HERE, port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    pytest.fail("nginx did not open its port within ten seconds.")
