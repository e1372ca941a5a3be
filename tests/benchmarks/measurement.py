"""What a benchmark reports, and how a figure is taken.

- A figure that is compared is the median over alternated repetitions in one run: ratios travel between machines,
  absolute values do not.
- A `Bar` is a promise of the project; a measurement without one is information.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = [
    "Bar",
    "Measurement",
    "Scale",
    "medians",
    "microseconds_each",
    "table",
]

Scale = Literal["quick", "full"]
"""`quick` shows that a benchmark works and measures nothing; `full` is what the bars are for."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A promise: the ratio (or, with `of="value"`, the value) is at least or at most `limit`."""

    kind: Literal["at least", "at most"]
    limit: float
    of: Literal["ratio", "value"] = "ratio"

    def met_by(self, value: float, ratio: float | None) -> bool:
        """Whether the figures keep the promise."""
        figure = value if self.of == "value" else ratio
        if figure is None:
            return False
        return figure >= self.limit if self.kind == "at least" else figure <= self.limit


@dataclass(frozen=True, slots=True)
class Measurement:
    """One line of the table. `ratio` is `value` over the value of `beside`, or where times are meant its inverse."""

    what: str
    value: float
    unit: str
    ratio: float | None = None
    beside: str | None = None
    bar: Bar | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is none."""
        return None if self.bar is None else self.bar.met_by(self.value, self.ratio)

    def to_dict(self) -> dict[str, Any]:
        """The measurement as plain JSON."""
        return {**asdict(self), "met": self.met}


def microseconds_each(run: Callable[[], object], calls: int) -> float:
    """Elapsed microseconds of one call, over `calls` of them in a row."""
    started = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - started) / calls * 1e6


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds."""
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def table(measurements: Iterable[Measurement]) -> str:
    """The measurements as text, ratios before absolute values."""
    header = ("what", "ratio", "beside", "bar", "met", "measured")
    rows = [header, *(_cells(one) for one in measurements)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _cells(one: Measurement) -> tuple[str, ...]:
    bar = ""
    if one.bar is not None:
        sign = ">=" if one.bar.kind == "at least" else "<="
        bar = f"{sign} {one.bar.limit:g}" + (f" {one.unit}" if one.bar.of == "value" else "")
    met = {None: "", True: "yes", False: "NO"}[one.met]
    ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
    return (one.what, ratio, one.beside or "", bar, met, f"{_number(one.value)} {one.unit}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
