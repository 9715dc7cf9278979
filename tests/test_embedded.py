"""The embedded PostgreSQL, as those who have none of their own meet it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-m", "callflow_service.cli"]


def environment(folder: Path, **others: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    return inherited | {"CALLFLOW_DATA_DIR": str(folder), "CALLFLOW_DRAIN_SECONDS": "0"} | others


def migrate(folder: Path, **others: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, "migrate"],
        env=environment(folder, **others),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def served(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*PROGRAM, "serve", "--demo", "--port", "0"], env=environment(folder), stdout=subprocess.PIPE, text=True
    ) as serving:
        try:
            assert serving.stdout
            assert any("Application startup complete." in line for line in serving.stdout)
            yield serving
        finally:
            serving.terminate()


def runs(folder: Path) -> bool:
    return (folder / "postgresql" / "postmaster.pid").exists()


@pytest.mark.parametrize("name", ["with blanks & more, 100%", "l" * 120])
def test_the_data_may_be_kept_below_any_path(tmp_path: Path, name: str) -> None:
    done = migrate(tmp_path / name)
    assert (done.returncode, done.stderr) == (0, "")
    assert not runs(tmp_path / name)


def test_the_lock_file_of_another_user_is_in_nobodys_way(tmp_path: Path) -> None:
    # A folder in its place: not even root can take that one for a lock.
    (tmp_path / ".lockfile").mkdir()
    done = migrate(tmp_path / "data", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_no_postgresql_is_left_behind_by_an_interruption_or_a_closed_terminal(
    tmp_path: Path, ending: signal.Signals
) -> None:
    with served(tmp_path) as serving:
        assert runs(tmp_path)
        serving.send_signal(ending)
    assert not runs(tmp_path)


def test_a_service_that_was_killed_is_not_waited_for_when_the_next_one_stops(tmp_path: Path) -> None:
    with served(tmp_path) as killed:
        killed.kill()
    assert runs(tmp_path)
    with served(tmp_path) as serving:
        assert json.loads((tmp_path / "postgresql" / ".handle_pids.json").read_text()) == [serving.pid]
        serving.terminate()
    assert not runs(tmp_path)
