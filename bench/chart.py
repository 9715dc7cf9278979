"""Draw the measured rates as one picture."""

from pathlib import Path
from statistics import median
from typing import Final

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

_COLOURS: Final = {"ours": "#1f6f8b", "ceiling": "#99a8b2", "usual": "#d9822b", "pgbench": "#5c6b73"}


def draw(rates: dict[str, dict[str, list[float]]], file: Path) -> None:
    """Updates, lookups and endurance side by side, as a PNG."""
    figure, (updates, lookups, endurance) = plt.subplots(1, 3, figsize=(12, 4), width_ratios=(4, 3, 5))
    for axes, kind in ((updates, "updates"), (lookups, "lookups")):
        names = list(rates[kind])
        bars = axes.bar(names, [median(rates[kind][name]) for name in names], color=[_COLOURS[name] for name in names])
        axes.bar_label(bars, fmt="{:,.0f}")
        axes.set_title(f"{kind.capitalize()} a second")
    endurance.plot(rates["endurance"]["ours"], color=_COLOURS["ours"], label="updates a second")
    endurance.plot(rates["endurance"]["rss_mb"], color=_COLOURS["usual"], label="memory of the worker, MB")
    endurance.set_ylim(bottom=0)
    endurance.set_xlabel("15 seconds each")
    endurance.set_title("Endurance")
    endurance.legend()
    for axes in (updates, lookups, endurance):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
