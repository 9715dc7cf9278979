"""Rings of forwards: which devices lead back to where a call began."""

from collections.abc import Mapping, Sequence


def ring_through(device: int, leads_to: Mapping[int, Sequence[int]]) -> list[int] | None:
    """The shortest ring of forwards through `device`, as the devices on it in order; None where there is none.

    Args:
        device: Where the ring begins and ends.
        leads_to: Where each device's forwards lead.
    """
    came_from: dict[int, int] = {}
    reached = [device]
    while reached:
        following = []
        for here in reached:
            for target in leads_to.get(here, ()):
                if target == device:
                    path = [here]
                    while path[-1] != device:
                        path.append(came_from[path[-1]])
                    return path[::-1]
                if target not in came_from:
                    came_from[target] = here
                    following.append(target)
        reached = following
    return None
