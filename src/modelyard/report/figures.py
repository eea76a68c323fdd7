"""Numbers as a report shows them."""

from __future__ import annotations

NONE = "-"


def count(number: float) -> str:
    """Return a number, rounded to a whole one, with commas between thousands."""
    return f"{round(number):,}"


def share(part: float, whole: float) -> str:
    """In percent, rounded down: 100 % means all of them."""
    some, all_ = max(0, round(part)), round(whole)
    if all_ <= 0:
        return NONE
    return "100 %" if some >= all_ else f"{10000 * some // all_ / 100:.2f} %"


def seconds(number: float | None) -> str:
    """Return a short time as text: in ms below one second, else in s; NONE for None."""
    if number is None:
        return NONE
    return f"{number * 1000:.0f} ms" if number < 1 else f"{number:.2f} s"


def duration(number: float) -> str:
    """Return a long time as text, in two units. `number` is in seconds."""
    minutes, rest = divmod(round(number), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
