"""Which callers are let in: what they prove, and how often they were wrong."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from callflow_service.credentials.api_keys import Keyring
from callflow_service.credentials.counting import Guesser
from callflow_service.credentials.guesses import Guessed, Guesses, guesser
from callflow_service.credentials.passwords import Passwords
from callflow_service.domain import access
from callflow_service.domain.access import Account, Claim, PasswordCheck
from callflow_service.domain.errors import LoginFailed, SignatureMismatch
from callflow_service.domain.history import Sender
from callflow_service.domain.signature import HashPolicy

_log = logging.getLogger(__name__)

CheckSignature = Callable[[Account, Claim, HashPolicy], None]


@dataclass(frozen=True, slots=True)
class Admission:
    """Lets callers in, under the operator's rules.

    Attributes:
        api_enabled: Whether anybody may call at all.
        default_policy: The signature policy of accounts that have none of their own.
        guesses: Refuses clients that were wrong too often about an account.
        passwords: Checks the passwords of callers that send one.
        keys: Decrypts the API keys that requests are signed with.
    """

    api_enabled: bool
    default_policy: HashPolicy
    guesses: Guesses
    passwords: Passwords
    keys: Keyring

    async def let_try(self, claim: Claim, sender: Sender) -> Guesser:
        """The client of a request, as its wrong guesses are counted: asked before anything is looked up.

        Raises:
            TooManyGuesses: Wrong requests for this account, or for many, came from the sender's address too often.
        """
        client = guesser(Guessed.ACCOUNT, claim.username or "", sender.address)
        await self.guesses.refuse(client)
        return client

    async def admit(
        self, client: Guesser, account: Account | None, claim: Claim, sender: Sender, check_signature: CheckSignature
    ) -> Account:
        """The account, where the claim is right. It may wait for a slow hash, so it is asked without a connection.

        Raises:
            AccessError: The first thing that is wrong, in the order of MOR's error table.
            TooManyGuesses: As above; of many guesses at once others may have been wrong meanwhile.
            StorageUnavailable: The API key that the account signs with cannot be decrypted.
        """
        self.guesses.refuse_known(client)
        access.check_open(account, claim, api_enabled=self.api_enabled)
        policy = (account and account.hash_policy) or self.default_policy
        try:
            # A caller from a disallowed address must cost no password hash and must not learn that the account exists.
            access.check_address(account, sender.address)
            account = access.check_login(account, await self._check_password(account, claim, client), policy)
            if policy is not HashPolicy.OFF:
                # Not before: a key that cannot be decrypted must not refuse an account that needs none.
                account = replace(account, api_key=self.keys.decrypt_for_request(account.api_key, account.username))
            check_signature(account, claim, policy)
        except (LoginFailed, SignatureMismatch):
            await self.guesses.count(client)
            await self.guesses.share(client)
            raise
        await self.guesses.forgive(client)
        access.check_role(account)
        return account

    async def _check_password(self, account: Account | None, claim: Claim, client: Guesser) -> PasswordCheck:
        if account is None or account.password_hash is None or claim.password is None:
            return PasswordCheck.NOT_CHECKED
        if self.passwords.is_remembered(claim.password, account.password_hash):
            return PasswordCheck.RIGHT
        is_right = await self.passwords.is_right(claim.password, account.password_hash, client)
        self.guesses.refuse_known(client)
        return PasswordCheck.RIGHT if is_right else PasswordCheck.WRONG


def check_update_signature(account: Account, claim: Claim, policy: HashPolicy) -> None:
    """As `access.check_update_signature`, with a word to the operator where `compat` would have passed the request.

    Raises:
        SignatureMismatch: No string that the policy accepts gives the signature.
    """
    try:
        access.check_update_signature(account, claim, policy)
    except SignatureMismatch:
        if policy is HashPolicy.STRICT and access.would_pass_compat(account, claim):
            _log.warning(
                "Account %r signs only part of its requests; they pass only where its hash_policy is 'compat'",
                account.username,
            )
        raise
