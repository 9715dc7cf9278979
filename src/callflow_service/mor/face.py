"""Answer MOR's two calls over HTTP: read, ask the service, write the page."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from callflow_service.domain.errors import (
    ActionUnknown,
    ApiDisabled,
    CallFlowError,
    ConditionNotFound,
    DestinationMissing,
    DeviceNotFound,
    DidNotFound,
    ExternalNumberInvalid,
    FaxDeviceNotFound,
    LocalDeviceNotFound,
    LoginFailed,
    MethodDisabled,
    NotAuthorised,
    SignatureMismatch,
    StateUnknown,
    TargetRefused,
)
from callflow_service.domain.history import Sender
from callflow_service.mor import documentation
from callflow_service.mor.pages import MEDIA_TYPE, ErrorEnvelope, error_page, get_page, update_page
from callflow_service.mor.parameters import ContentEncoded, Parameters, RequestUnreadable, read_parameters
from callflow_service.usecases.call_flows import CallFlows
from callflow_service.web.faces import Face
from callflow_service.web.request import client_address, header, read_body

ERROR_TEXTS: Final[dict[type[CallFlowError], str]] = {
    ApiDisabled: "API Requests are disabled",
    MethodDisabled: "GET Requests are disabled",
    LoginFailed: "Bad login",
    SignatureMismatch: "Incorrect hash",
    NotAuthorised: "You are not authorised to use this functionality",
    DeviceNotFound: "Device was not found",
    StateUnknown: "Callflow state was not found",
    ActionUnknown: "Callflow action was not found",
    DestinationMissing: "Missing forward parameters",
    LocalDeviceNotFound: "Local device was not found",
    ExternalNumberInvalid: "External number was not found",
    FaxDeviceNotFound: "FAX device was not found",
    DidNotFound: "DID was not found",
    TargetRefused: "External number was not found",
    # What MOR's calls set names no schedule and no caller list.
    ConditionNotFound: "Callflow action was not found",
}
"""MOR's texts, exact; clients compare them."""

GET_ERROR_TEXTS: Final = ERROR_TEXTS | {LoginFailed: "User was not found"}
"""The texts of `device_callflow_get`, which words one of them its own way."""

FAILED_TRANSPORT: Final = {
    400: "Request cannot be read",
    404: "There is no such call",
    405: "This call takes POST, and GET where that is allowed",
    408: "Request did not arrive in time",
    413: "Request body is larger than 64 KiB",
    429: "Too many wrong requests, try again later",
    500: "Internal error",
    503: "Service is temporarily unavailable",
}
"""Our own texts for what is no answer of MOR's at all."""

PREFIXES: Final = ("/billing/api", "/api")
"""Where clients have the calls; the first is the one that is documented."""

# Behind it, where a separator was lost or misspelt, the next parameter begins, which may be the password.
_IN_NO_USERNAME: Final = re.compile("[^A-Za-z0-9 ._@+-]")


@dataclass(frozen=True, slots=True)
class MorFace:
    """MOR's two calls, under the operator's rules."""

    call_flows: CallFlows
    allow_get: bool
    envelope: ErrorEnvelope

    def face(self) -> Face:
        """Both calls, below both prefixes, by POST and by GET."""
        router = APIRouter()
        calls = ((self.update, documentation.UPDATE), (self.get, documentation.GET))
        for prefix in PREFIXES:
            for endpoint, call in calls:
                for method in ("POST", "GET"):
                    router.add_api_route(
                        f"{prefix}/{call.name}",
                        endpoint,
                        methods=[method],
                        response_class=Response,
                        include_in_schema=prefix == PREFIXES[0],
                        **call.describe(method),
                    )
        return Face(
            name="mor",
            prefixes=PREFIXES,
            router=router,
            calls=tuple(call.name for _, call in calls),
            fast=tuple(route for route in router.routes if isinstance(route, APIRoute)),
            words=FAILED_TRANSPORT,
            write=lambda _status, text, _request_id: (MEDIA_TYPE, error_page(text, self.envelope)),
            sheds=True,
            is_tolerant=True,
        )

    async def update(self, request: Request) -> Response:
        """Change what a device does with a call in one state."""

        async def answer(parameters: Parameters) -> bytes:
            wanted = parameters.wanted_change()
            claim = parameters.update_claim(method_allowed=self._is_allowed(request))
            return update_page(await self.call_flows.update(claim, wanted, sender_of(request)))

        return await self._answer(request, "device_callflow_update", ERROR_TEXTS, answer)

    async def get(self, request: Request) -> Response:
        """Tell what a device does with a call in each state."""

        async def answer(parameters: Parameters) -> bytes:
            claim = parameters.get_claim(method_allowed=self._is_allowed(request))
            return get_page(await self.call_flows.get(claim, parameters.device_id, sender_of(request)))

        return await self._answer(request, "device_callflow_get", GET_ERROR_TEXTS, answer)

    async def _answer(
        self,
        request: Request,
        call: str,
        texts: dict[type[CallFlowError], str],
        answer: Callable[[Parameters], Awaitable[bytes]],
    ) -> Response:
        log: dict[str, object] = request.scope["log"]
        log["call"] = call
        try:
            if header(request, b"content-encoding").strip().lower() not in {"", "identity"}:
                raise ContentEncoded("Request body is encoded; send it as it is, without Content-Encoding")
            body = await read_body(request)
            parameters = read_parameters(request.scope["query_string"], header(request, b"content-type"), body)
            log["account"] = _IN_NO_USERNAME.split(parameters.values.get("u", "")[:64], maxsplit=1)[0]
            page = await answer(parameters)
        except RequestUnreadable as error:
            log["outcome"] = str(error)
            return self._page(str(error), status=error.status)
        except CallFlowError as error:
            text = texts[type(error)]
            log["outcome"] = text
            if isinstance(error, TargetRefused):
                log["targets_refused"] = [error.refusal]
            return self._page(text, status=200)
        log["outcome"] = "ok"
        return Response(page, media_type=MEDIA_TYPE)

    def _page(self, text: str, *, status: int) -> Response:
        return Response(error_page(text, self.envelope), status_code=status, media_type=MEDIA_TYPE)

    def _is_allowed(self, request: Request) -> bool:
        return self.allow_get or request.method != "GET"


def sender_of(request: Request) -> Sender:
    """Where a request comes from; behind a trusted proxy, the address that it tells."""
    return Sender(client_address(request), str(request.scope["log"]["request_id"]))
