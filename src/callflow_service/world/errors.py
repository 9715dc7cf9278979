"""What is wrong with a world file, as a sentence for the operator."""

from pathlib import Path


class WorldError(Exception):
    """The world file was not loaded; nothing in the database has changed.

    The text is `FILE:LINE: PLACE: sentence`, such as `world.yaml:12: devices[3].ring_seconds: must be ...`. It quotes
    no password and no key.

    Attributes:
        line: The line of the file that is wrong, from 1; None where it is the file as a whole.
    """

    def __init__(self, file: Path, line: int | None, sentence: str) -> None:
        super().__init__(f"{file}: {sentence}" if line is None else f"{file}:{line}: {sentence}")
        self.line = line
