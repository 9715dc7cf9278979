"""What the fault tests count is printed when they are done."""

from collections.abc import Callable

import pytest

Figure = Callable[[str, object], None]

_FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Print a figure, by what it says, after the last test."""
    figures = request.config.stash.setdefault(_FIGURES, [])

    def note(what: str, value: object) -> None:
        figures.append(f"{what}: {value}")

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash.get(_FIGURES, [])
    if figures:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.write_line(line)
