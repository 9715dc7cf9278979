"""A resource, and where its source has it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from callflow_service.resources.kept import KeptItem


@dataclass(frozen=True, slots=True)
class Placed:
    """A resource, and where its source has it.

    Attributes:
        position: Its place among its like, from 0.
        line: Its line; None in a source without lines.
        lines: The lines of its keys, as far as the source has them.
    """

    item: KeptItem
    position: int
    line: int | None = None
    lines: Mapping[str, int] = field(default_factory=dict)
