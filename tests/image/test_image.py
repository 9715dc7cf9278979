"""The image: what is in it, and that it migrates, serves and ends as Compose would have it."""

import asyncio
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from images import Image

from callflow_service.world.loading import DEMO_FILE, load_world
from clusters import Cluster, free_port, new_cluster, until
from encryption import KEY, KEYS
from mor_requests import GET, answer, get, got

pytestmark = pytest.mark.image

LARGEST = 160
"""Megabytes that the image may have beyond its base."""

# What adding a user changes.
USERS = {f"etc/{name}" for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")}


def files_below(folder: Path) -> dict[str, int]:
    """The size of each file, by its path."""
    found = {}
    for at, _, names in os.walk(folder):
        for path in (Path(at) / name for name in names):
            found[str(path.relative_to(folder))] = path.lstat().st_size
    return found


def test_the_image_holds_the_service_with_its_packages_and_nothing_else(
    image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    files, before = files_below(image.files), files_below(image.base)
    new = {path: size for path, size in files.items() if size != before.get(path)}
    ours = {path: size for path, size in new.items() if path.startswith("opt/callflow/")}
    assert {path.removesuffix("-") for path in new.keys() - ours.keys()} <= USERS
    megabytes = sum(new.values()) / 1_000_000
    with capsys.disabled():
        print(f"\nThe image has {megabytes:.0f} MB beyond its base.")  # noqa: T201 - what CI shows
    assert megabytes < LARGEST
    assert [path for path in ours if re.search(r"/tests/|\.(c|h|pyx|pxd|pxi)$|cache/", path)] == []


def test_the_packages_are_those_of_the_lock_file(image: Image) -> None:
    lock = (Path(__file__).parents[2] / "requirements" / "run.lock").read_text()
    # Those behind a condition are for other systems and Pythons.
    locked = set(re.findall(r"^([a-z0-9.-]+)==[^ ;]+ \\", lock, re.MULTILINE))
    conditional = set(re.findall(r"^([a-z0-9.-]+)==[^ ]+ ;", lock, re.MULTILINE))
    packages = image.files / "opt" / "callflow" / "lib" / "python3.13" / "site-packages"
    installed = {found.name.partition("-")[0].lower().replace("_", "-") for found in packages.glob("*.dist-info")}
    assert installed - conditional == {name.replace(".", "-") for name in locked} | {"callflow-service"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="callflow-test-") as folder:
        empty = new_cluster(Path(folder) / "primary")
        with empty.running():
            yield empty


async def test_the_image_migrates_serves_and_ends_as_a_user_that_can_write_to_tmp_alone(
    image: Image, cluster: Cluster
) -> None:
    port = str(free_port())
    settings = {
        "CALLFLOW_DATABASE_URL": cluster.url.get_secret_value(),
        "CALLFLOW_ENCRYPTION_KEYS": KEY.get_secret_value(),
        "CALLFLOW_HOST": "127.0.0.1",
        "CALLFLOW_PORT": port,
        "CALLFLOW_WORKERS": "2",
    }
    assert image.config["User"] == "10001:10001"
    outside = image.run("python", "-c", "open('/opt/callflow/written', 'w')")
    assert (outside[0], outside[1].splitlines()[-1][:27]) == (1, "OSError: [Errno 30] Read-on")
    migrated = await asyncio.to_thread(image.run, *image.config["Entrypoint"], "migrate", **settings)
    assert migrated[0] == 0, migrated[1]
    await load_world(cluster.url, DEMO_FILE, keys=KEYS, demo=True)
    serving = image.start(*image.config["Entrypoint"], *image.config["Cmd"], **settings)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as service:

            async def is_ready() -> bool:
                try:
                    return (await service.get("/health/ready")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(is_ready)
            assert answer(await service.post(GET, data=get())) == got()
            kind, *check = image.config["Healthcheck"]["Test"]
            assert (kind, image.run(*check, **settings)) == ("CMD", (0, ""))
        (first,) = psutil.Process(serving.pid).children()
        first.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(serving.wait, 20) == 0
    finally:
        serving.kill()
        said, _ = serving.communicate()
    assert "Traceback" not in said
