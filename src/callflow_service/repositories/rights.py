"""Which devices a caller may use, as SQL: `domain.access.may_use` for one row and for lists."""


def may_use(owner: str) -> str:
    """The condition under which the account `caller` may use the devices of the account `owner`, both of them aliases.

    It is about the owner alone, so a list finds the owners first and then their devices. The domain decides all the
    same; but what is read of a foreign device, sent and made an object of takes time, by which it could be told from
    one that is not there.
    """
    return f"""(caller.role = 'admin'
        OR caller.role IN ('reseller', 'user') AND caller.id = {owner}.id
        OR caller.role = 'reseller' AND caller.id = {owner}.owner_id)"""
