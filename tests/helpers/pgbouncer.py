"""A real PgBouncer in front of a cluster."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen
from tempfile import TemporaryDirectory
from time import sleep

import pytest
from pydantic import SecretStr

from clusters import LONG, Cluster, free_port


@dataclass(slots=True)
class PgBouncer:
    """It on a port of its own; its way of sharing connections is in its file."""

    port: int
    file: Path
    process: "Popen[bytes] | None" = None

    @property
    def url(self) -> SecretStr:
        return SecretStr(f"postgresql://postgres@127.0.0.1:{self.port}/postgres")

    def start(self) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            pytest.fail("These tests need pgbouncer; on Debian, install the package of that name.")
        # It refuses to be root.
        user = "nobody" if os.geteuid() == 0 else None
        self.process = Popen([program, "-q", str(self.file)], user=user, stderr=DEVNULL)
        sleep(0.3)
        assert self.process.poll() is None

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(LONG)

    async def restart(self) -> None:
        """End it as `systemctl restart` does where clients stay connected, and start it a second later."""
        self.kill()
        await asyncio.sleep(1)
        self.start()


@contextmanager
def running_pgbouncer(cluster: Cluster, mode: str) -> Iterator[PgBouncer]:
    with TemporaryDirectory(prefix="callflow-test-") as folder:
        Path(folder).chmod(0o755)
        bouncer = PgBouncer(free_port(), Path(folder) / "pgbouncer.ini")
        bouncer.file.write_text(f"""\
[databases]
* = host=127.0.0.1 port={cluster.port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {bouncer.port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 20
""")
        bouncer.start()
        try:
            yield bouncer
        finally:
            bouncer.kill()
