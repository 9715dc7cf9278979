"""Everything that can be wrong with a request, in domain words.

    CallFlowError
    ├── AccessError
    │   ├── ApiDisabled            the API is switched off, for all or for this account
    │   ├── MethodDisabled         the request came by a method that is not allowed
    │   ├── LoginFailed            no such account, blocked, or a wrong password
    │   ├── SignatureMismatch      no accepted string gives the hash that was sent
    │   └── NotAuthorised          the account's role may not use call flows
    └── ChangeRefused
        ├── DeviceNotFound         not there, or not the caller's
        ├── StateUnknown
        ├── ActionUnknown          or not possible in this state
        ├── DestinationMissing     a forward with neither device nor number
        ├── LocalDeviceNotFound    the forward's device is not there or not allowed
        ├── ExternalNumberInvalid
        ├── FaxDeviceNotFound      missing, not there, not a FAX device, or not allowed
        ├── DidNotFound            not there, or not assigned to the device
        ├── TargetRefused          the number may not be forwarded to
        └── ConditionNotFound      a schedule or a caller list that a rule names is not there

Each face owns one table from these to its wire. `StorageUnavailable` stands apart: it says nothing
about the request, only that the facts could not be had. So does `TooManyGuesses`: it speaks of the requests before.
"""

from callflow_service.domain.targets import Refusal


class CallFlowError(Exception):
    """A request that is answered with an error and changes nothing."""


class AccessError(CallFlowError):
    """The caller may not come in."""


class ApiDisabled(AccessError):
    """The API is switched off, as a whole or for this account."""


class MethodDisabled(AccessError):
    """The request came by a method (GET) that is not allowed."""


class LoginFailed(AccessError):
    """No such account, a blocked one, or a wrong password."""


class SignatureMismatch(AccessError):
    """None of the accepted strings gives the hash that was sent."""


class NotAuthorised(AccessError):
    """The account's role has no call flows to see or change."""


class ChangeRefused(CallFlowError):
    """The caller may come in, but what it asks for cannot be."""


class DeviceNotFound(ChangeRefused):
    """The device is not there, or not the caller's: the two look the same."""


class StateUnknown(ChangeRefused):
    """The state is missing or is none of the four."""


class ActionUnknown(ChangeRefused):
    """The action is missing, unknown, or not possible in this state."""


class DestinationMissing(ChangeRefused):
    """A forward names neither a device nor a number."""


class LocalDeviceNotFound(ChangeRefused):
    """The device to forward to is not there, or not allowed as a target."""


class ExternalNumberInvalid(ChangeRefused):
    """The number to forward to is not a number."""


class FaxDeviceNotFound(ChangeRefused):
    """The FAX device is missing, not there, of another type, or not allowed as a target."""


class DidNotFound(ChangeRefused):
    """The DID is not there, or not assigned to the device."""


class TargetRefused(ChangeRefused):
    """The number is one that the account's devices may not forward to.

    Args:
        refusal: Why.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class ConditionNotFound(ChangeRefused):
    """A schedule or a caller list that a rule names is not there."""


class StorageUnavailable(Exception):
    """The database could not be asked, or did not answer in time. Nothing is known to have changed."""


class Overloaded(StorageUnavailable):
    """More is in work already than can be done in time."""

    def __init__(self) -> None:
        super().__init__("overloaded")


class TooManyGuesses(Exception):
    """Whoever asks was wrong too often, so that it is not looked at whether he is right now.

    Args:
        retry_after_seconds: When he may try again; whole seconds, at least 1.
    """

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds
