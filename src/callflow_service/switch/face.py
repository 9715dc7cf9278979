"""Answer the switches over HTTP, in time: whatever happens here, a call goes on."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from callflow_service.domain.asked import Asked, SwitchUser
from callflow_service.domain.decoding import decoded, decoded_again
from callflow_service.domain.dialing import DialPlan
from callflow_service.domain.errors import Overloaded, StorageUnavailable, TooManyGuesses
from callflow_service.domain.routing import Decision
from callflow_service.switch import documentation
from callflow_service.switch.flat import Asterisk, OpenSips
from callflow_service.switch.freeswitch import FreeSwitch
from callflow_service.switch.kamailio import Kamailio
from callflow_service.switch.questions import Senseless
from callflow_service.usecases.calls import Calls
from callflow_service.usecases.switch_users import SwitchUnknown
from callflow_service.web.faces import Face
from callflow_service.web.request import BodyTooLarge, client_address, header, read_body

_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="callflow-service"'}

_log = logging.getLogger(__name__)


class Switch(Protocol):
    """One kind of switch: its words for a question and for an answer."""

    @property
    def name(self) -> str:
        """What its address ends in."""

    @property
    def templates(self) -> Mapping[str, str]:
        """How it dials where the switch user says nothing else."""

    def read(self, values: Mapping[str, str]) -> Asked:
        """The question.

        Raises:
            Senseless: There is none.
        """

    def write(self, decision: Decision, plan: DialPlan, asked: Asked, values: Mapping[str, str]) -> tuple[str, bytes]:
        """The answer's media type and body."""

    def carry_on(self, values: Mapping[str, str]) -> tuple[str, bytes]:
        """The answer where we have none."""


SWITCHES: Final[tuple[Switch, ...]] = (FreeSwitch(), Asterisk(), Kamailio(), OpenSips())


@dataclass(frozen=True, slots=True)
class SwitchFace:
    """Where the switches ask, under the operator's rules; `timeout_ms` runs from a question's first byte."""

    calls: Calls
    timeout_ms: int

    def face(self) -> Face:
        """One path for each kind of switch, by POST and by GET."""
        router = APIRouter(prefix="/switch")
        for switch in SWITCHES:
            for method in ("POST", "GET"):
                router.add_api_route(
                    f"/{switch.name}",
                    self._endpoint(switch),
                    methods=[method],
                    response_class=Response,
                    **documentation.describe(switch.name, method),
                )
        return Face(
            name="switch",
            prefixes=("/switch",),
            router=router,
            calls=tuple(f"switch.{switch.name}" for switch in SWITCHES),
            fast=tuple(route for route in router.routes if isinstance(route, APIRoute)),
            security_schemes={documentation.SCHEME: {"type": "http", "scheme": "basic"}},
        )

    def _endpoint(self, switch: Switch) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return await self._answer(switch, request)

        return endpoint

    async def _answer(self, switch: Switch, request: Request) -> Response:
        log: dict[str, object] = request.scope["log"]
        log["call"] = f"switch.{switch.name}"
        values: dict[str, str] = {}
        status, headers = 200, None
        try:
            async with asyncio.timeout(request.scope["began"] + self.timeout_ms / 1000 - time.perf_counter()):
                # Read before anything is refused, for even a refusal must fit the question.
                problem = await _read_values(request, values)
                return await self._decide(switch, request, values, problem)
        except SwitchUnknown:
            status, headers = 401, _CHALLENGE
            log["outcome"] = "wrong credentials"
        except TooManyGuesses as error:
            status, headers = 429, {"Retry-After": str(error.retry_after_seconds)}
            log["outcome"] = "too many wrong credentials"
        except (Senseless, ClientDisconnect) as error:
            log["outcome"] = f"carry on: {str(error) or 'the client went away'}"
        except TimeoutError:
            log["outcome"] = "carry on: out of time"
        except StorageUnavailable as error:
            log["outcome"] = f"carry on: {'overloaded' if isinstance(error, Overloaded) else 'database unavailable'}"
            log["detail"] = str(error)
        except Exception:  # noqa: BLE001 - a defect of ours must not cost a call
            _log.exception("defect", extra={"fields": {"request_id": log["request_id"]}})
            log["outcome"] = "carry on: defect"
        media_type, body = switch.carry_on(values)
        return Response(body, status_code=status, headers=headers, media_type=media_type)

    async def _decide(self, switch: Switch, request: Request, values: Mapping[str, str], problem: str) -> Response:
        log: dict[str, object] = request.scope["log"]
        question: tuple[Asked, DialPlan]

        def read(user: SwitchUser) -> tuple[Asked, DialPlan]:
            nonlocal question
            log["account"] = user.username
            if problem:
                raise Senseless(problem)
            question = switch.read(values), user.plan(switch.name, switch.templates)
            return question

        shown = header(request, b"authorization")
        decision = await self.calls.where_to(shown, client_address(request), read)
        asked, plan = question
        log |= {"outcome": decision.action.value, "flow_id": decision.flow_id, "explain": decision.explain}
        if decision.loops_cut:
            log["loops_cut"] = decision.loops_cut
        if decision.targets_refused:
            log["targets_refused"] = list(decision.targets_refused)
        media_type, body = switch.write(decision, plan, asked, values)
        return Response(body, media_type=media_type)


async def _read_values(request: Request, values: dict[str, str]) -> str:
    """Put the question's names and values into `values`: of the query, then of a form or a JSON object in the body.

    Returns what is wrong with the body, empty where nothing is: whoever sent it is to be known before it is said.
    """
    if query := request.scope["query_string"]:
        values.update(_form(query))
    try:
        body = await read_body(request)
    except BodyTooLarge:
        return "body too large"
    if not body:
        return ""
    if not header(request, b"content-type").lower().startswith("application/json"):
        values.update(_form(body))
        return ""
    try:
        document = json.loads(body.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError):
        return "body is no JSON"
    if not isinstance(document, dict):
        return "body is no JSON object"
    values.update({name: _text(value) for name, value in document.items()})
    return ""


def _form(encoded: bytes | bytearray) -> list[tuple[str, str]]:
    try:
        return parse_qsl(encoded.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        # Decoded as Latin-1, each character is a byte, so that each value can be told to be UTF-8 or not.
        pairs = parse_qsl(encoded.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
        return [(decoded(name.encode("latin-1")), decoded(value.encode("latin-1"))) for name, value in pairs]


def _text(value: Any) -> str:  # noqa: ANN401 - JSON can be anything
    if isinstance(value, str):
        return decoded_again(value)
    # Numbers as their digits; what is neither is as absent.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
