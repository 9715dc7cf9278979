"""Read text as it came: clients and switches send bytes that do not say in which encoding they are."""

from urllib.parse import unquote_to_bytes


def decoded(raw: bytes) -> str:
    """`raw` as UTF-8, and as Latin-1 where it is not UTF-8: old phones and carriers send that."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def decoded_again(damaged: str) -> str:
    """Mend a text that was decoded as UTF-8 with `surrogateescape`: where that damaged it, it is read as Latin-1."""
    if damaged.isascii():
        return damaged
    try:
        return decoded(damaged.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        # It holds half a surrogate pair that JSON wrote as \ud800.
        return damaged


def user_part(text: str) -> str:
    """The user part of a SIP URI without its parameters, percent-decoded: `*21%23;npdi` is `*21#`.

    Carriers put number portability (`;npdi;rn=`) and the check of the caller ID (`;verstat=`) there.
    """
    return decoded(unquote_to_bytes(text.partition(";")[0])) if "%" in text else text.partition(";")[0]
