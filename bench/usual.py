"""The same call as most would write it with FastAPI and SQLModel: a select for each entity, objects changed, commit."""

import hmac
import os
from collections.abc import AsyncIterator
from hashlib import sha1
from ipaddress import ip_address
from typing import Annotated, Final
from uuid import uuid4

import xmltodict
from fastapi import Depends, FastAPI, Form, Request, Response
from pydantic import BaseModel, SecretStr
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.settings import driver_url
from callflow_service.tables import AccountRow, CallFlowHistoryRow, CallFlowRow, DeviceRow, DidRow

_STATES: Final = {"before_call": "Before call", "no_answer": "No answer", "failed": "Failed", "busy": "Busy"}
_ACTIONS: Final = {"forward": "Forward", "fax_detect": "Fax detect", "voicemail": "Voicemail", "empty": None}
_KINDS: Final = {"source": "Same as comes", "did": "From DID", "custom": "Custom"}

_engine = create_async_engine(driver_url(SecretStr(os.environ["BENCH_DATABASE_URL"])), pool_size=10, max_overflow=0)
_sessions = async_sessionmaker(_engine, class_=AsyncSession, expire_on_commit=False)
app = FastAPI()


class Refused(Exception):
    """The request is answered with MOR's error of this text."""


class Update(BaseModel):
    """The parameters, in the order in which they are signed, then those that are not."""

    device_id: int
    callflow_action: str
    state: str
    forward_to_device: int | None = None
    external_number: str | None = None
    fax_device: int | None = None
    voicemail: str | None = None
    device_callerid: str | None = None
    src_callerid: str | None = None
    did_id: int | None = None
    custom: str | None = None
    u: str
    hash: str


async def _session() -> AsyncIterator[AsyncSession]:
    async with _sessions() as session:
        yield session


@app.exception_handler(Refused)
async def refuse(_: Request, refused: Refused) -> Response:
    """The error page."""
    return _page({"page": {"status": {"error": str(refused)}}})


@app.post("/billing/api/device_callflow_update")
async def update(
    request: Request, form: Annotated[Update, Form()], session: Annotated[AsyncSession, Depends(_session)]
) -> Response:
    """`device_callflow_update`."""
    account = await _caller(session, form)
    device = await session.get(DeviceRow, form.device_id)
    owner = await session.get(AccountRow, device.owner_id) if device else None
    if device is None or owner is None or not _may_use(account, owner):
        raise Refused("Device was not found")
    if form.state not in _STATES:
        raise Refused("Callflow state was not found")
    if form.callflow_action not in _ACTIONS:
        raise Refused("Callflow action was not found")
    target = await _target(session, account, form)
    did = await session.get(DidRow, form.did_id) if form.did_id else None
    if form.did_id and (did is None or did.device_id != device.id):
        raise Refused("DID was not found")
    flow = (
        await session.exec(
            select(CallFlowRow).where(
                CallFlowRow.device_id == device.id, CallFlowRow.state == form.state, CallFlowRow.priority == 1
            )
        )
    ).one_or_none()
    before = flow.model_dump() if flow else None
    flow = flow or CallFlowRow(device_id=device.id, state=form.state, priority=1)  # type: ignore[call-arg]  # SQLModel leaves the rest to be set
    flow.action = form.callflow_action
    flow.target_device_id = target.id if target else None
    flow.target_number = flow.caller_id = flow.caller_id_text = flow.caller_id_did_id = None
    if form.callflow_action == "forward":
        flow.target_number = None if target else form.external_number
        flow.caller_id = _kind(form)
        flow.caller_id_did_id = form.did_id if flow.caller_id == "did" else None
        flow.caller_id_text = form.custom if flow.caller_id == "custom" else None
    session.add(flow)
    session.add(
        CallFlowHistoryRow(  # type: ignore[call-arg]  # SQLModel leaves the rest to be set
            account_id=account.id,
            face="mor",
            address=ip_address(request.client.host) if request.client else None,
            request_id=uuid4().hex,
            device_id=device.id,
            state=form.state,
            priority=1,
            before=before,
            after=flow.model_dump(),
        )
    )
    await session.commit()
    callflow = {
        "state": _STATES[form.state],
        "priority": "1",
        "action": _ACTIONS[flow.action],
        "data": f"{target.technology}/{target.name}" if target else flow.target_number,
        "callerid_type": _KINDS.get(flow.caller_id or "", "From Device"),
        "callerid_data": did.number if did and flow.caller_id == "did" else flow.caller_id_text,
    }
    label = f"{device.technology}/{device.name}"
    status = "Callflow was successfully updated"
    return _page({"page": {"status": status, "user": owner.name, "device": label, "callflow": callflow}})


async def _caller(session: AsyncSession, form: Update) -> AccountRow:
    account = (await session.exec(select(AccountRow).where(AccountRow.username == form.u))).one_or_none()
    if account is None or account.blocked:
        raise Refused("Bad login")
    if not account.api_enabled:
        raise Refused("API Requests are disabled")
    holder: AccountRow | None = account
    while holder is not None and holder.api_key is None:
        holder = await session.get(AccountRow, holder.owner_id) if holder.owner_id else None
    values = form.model_dump(exclude={"u", "hash"}, exclude_none=True)
    signed = "".join(str(value) for value in values.values()) + (holder.api_key or "" if holder else "")
    digest = sha1(signed.encode(), usedforsecurity=False).hexdigest()
    if holder is None or not hmac.compare_digest(digest, form.hash.lower()):
        raise Refused("Incorrect hash")
    if account.role == "accountant" or (account.role == "reseller" and not account.pbx_addon):
        raise Refused("You are not authorised to use this functionality")
    return account


async def _target(session: AsyncSession, account: AccountRow, form: Update) -> DeviceRow | None:
    if form.callflow_action == "forward":
        if not form.forward_to_device and not form.external_number:
            raise Refused("Missing forward parameters")
        wanted, missing = form.forward_to_device, "Local device was not found"
    elif form.callflow_action == "fax_detect":
        wanted, missing = form.fax_device, "FAX device was not found"
    else:
        return None
    if wanted is None:
        return None
    target = await session.get(DeviceRow, wanted)
    owner = await session.get(AccountRow, target.owner_id) if target else None
    if target is None or owner is None or not _may_use(account, owner):
        raise Refused(missing)
    return target


def _may_use(account: AccountRow, owner: AccountRow) -> bool:
    return account.role == "admin" or account.id in {owner.id, owner.owner_id}


def _kind(form: Update) -> str:
    if form.device_callerid == "true":
        return "device"
    if form.src_callerid == "true":
        return "source"
    if form.did_id:
        return "did"
    return "custom" if form.custom else "device"


def _page(document: dict[str, object]) -> Response:
    text = xmltodict.unparse(document, encoding="UTF-8", pretty=True, indent="  ", short_empty_elements=True)
    return Response(text + "\n", media_type="application/xml; charset=utf-8")
