"""Where a call goes now: the call flows of the devices on its way, followed without asking anybody.

`route` is pure: it gets facts and gives a decision. A fact that is missing is an error that names it, so that the
caller can fetch it and ask again.
"""

from callflow_service.domain.routing.router import route
from callflow_service.domain.routing.words import (
    CAUSES,
    NEVER_SET,
    Circumstances,
    Decision,
    Facts,
    FactsMissing,
    Question,
    RouteAction,
    RoutedDevice,
    Rules,
)

__all__ = [
    "CAUSES",
    "NEVER_SET",
    "Circumstances",
    "Decision",
    "Facts",
    "FactsMissing",
    "Question",
    "RouteAction",
    "RoutedDevice",
    "Rules",
    "route",
]
