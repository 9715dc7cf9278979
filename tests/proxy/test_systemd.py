"""The shipped systemd units, read by systemd's own tools."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.proxy

UNITS = sorted((Path(__file__).parents[2] / "deploy").glob("*.service"))
MOST_EXPOSED = 20
"""Ten times systemd's level of exposure, which goes from 0 to 10."""


@pytest.fixture(params=UNITS, ids=lambda unit: unit.name)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit as it is shipped, but for its program, which is looked for and not installed here."""
    if shutil.which("systemd-analyze") is None:
        pytest.fail("These tests need systemd-analyze; on Debian, install the package systemd.")
    text = request.param.read_text()
    assert "ExecStart=/opt/callflow-service/bin/callflow-service " in text
    copy = tmp_path / request.param.name
    copy.write_text(text.replace("/opt/callflow-service/bin/callflow-service ", "/bin/true "))
    return copy


def analyzed(*arguments: str | Path) -> tuple[int, str]:
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_systemd_has_nothing_to_say_against_a_unit(unit: Path) -> None:
    assert analyzed("verify", "--man=no", unit) == (0, "")


def test_a_unit_is_hardly_exposed(unit: Path) -> None:
    status, said = analyzed("security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", unit)
    assert status == 0, said.splitlines()[-1]
