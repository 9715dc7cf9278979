"""Public holidays of countries and their regions, by the library `holidays`."""

from datetime import date
from functools import cache, lru_cache

from holidays import country_holidays, list_supported_countries

_REMEMBERED_YEARS = 4_096


def holidays_problem(country: str, region: str | None) -> str | None:
    """Why no holidays are known of a country (its ISO code) and a region in it, as a sentence; None where some are."""
    regions = _regions().get(country)
    if regions is None:
        return f"no holidays are known of a country {country}; it is an ISO code such as LT"
    if region is None or region in regions:
        return None
    if not regions:
        return f"the holidays of {country} are the same everywhere; leave the region out"
    return f"no holidays are known of a region {region} in {country}; its regions are {', '.join(regions)}"


def is_holiday(country: str, region: str | None, day: date) -> bool:
    """Whether a day is a public holiday there; what has no holidays that are known has none."""
    return day in _holidays(country, region, day.year)


@lru_cache(_REMEMBERED_YEARS)
def _holidays(country: str, region: str | None, year: int) -> frozenset[date]:
    try:
        return frozenset(country_holidays(country, subdiv=region, years=year))
    except NotImplementedError:
        # Stored when another release of the library knew it; a call goes on all the same.
        return frozenset()


@cache
def _regions() -> dict[str, list[str]]:
    return list_supported_countries(include_aliases=False)
