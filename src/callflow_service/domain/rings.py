"""Rings of forwards: which devices lead back to where a call began."""

from collections.abc import Collection, Mapping, Sequence


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


def way_to(start: int, goals: Collection[int], leads_to: Mapping[int, Sequence[int]]) -> list[int] | None:
    """The shortest way of forwards from `start` to one of `goals`, both of them on it; None where there is none.

    Args:
        start: Where the way begins.
        goals: Where it may end.
        leads_to: Where each device's forwards lead.
    """
    ways = [[start]]
    seen = {start}
    while ways:
        following = []
        for way in ways:
            if way[-1] in goals:
                return way
            for target in leads_to.get(way[-1], ()):
                if target not in seen:
                    seen.add(target)
                    following.append([*way, target])
        ways = following
    return None


def without_rings(wanted: Sequence[tuple[int, int]], leads_to: Mapping[int, Sequence[int]]) -> list[tuple[int, int]]:
    """Which of these forwards close no ring, each in place of all that its device has: as many as can go together.

    Args:
        wanted: Each forward's device and target.
        leads_to: Where each device's forwards lead now.
    """
    leads = dict(leads_to)
    open_, kept = list(wanted), []
    while True:
        refused = []
        for device, target in open_:
            before = leads.get(device, ())
            leads[device] = [target]
            if ring_through(device, leads):
                leads[device] = before
                refused.append((device, target))
            else:
                kept.append((device, target))
        if len(refused) == len(open_):
            return kept
        open_ = refused
