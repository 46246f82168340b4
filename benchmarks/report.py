"""How figures are printed: one line each, with its target and whether it is met."""

from __future__ import annotations

from benchmarks import measure

_missed: list[str] = []


def begin(title: str, *notes: str) -> None:
    """What is measured, and on what."""
    print(f"{title}\n  {measure.machine()}")
    for note in notes:
        print(f"  {note}")


def figure(name: str, value: float, unit: str, *, digits: int = 1) -> None:
    """One that has no target."""
    _line(name, value, unit, digits, "")


def at_least(name: str, value: float, unit: str, target: float, *, digits: int = 1) -> None:
    """One that should not be lower."""
    _line(name, value, unit, digits, f"target >= {target:g}", value >= target)


def below(name: str, value: float, unit: str, target: float, *, digits: int = 1) -> None:
    """One that should be lower."""
    _line(name, value, unit, digits, f"target < {target:g}", value < target)


def at_most(name: str, value: float, unit: str, target: float, *, digits: int = 1) -> None:
    """One that should not be higher."""
    _line(name, value, unit, digits, f"target <= {target:g}", value <= target)


def proven(name: str, *, holds: bool, what: str) -> None:
    """Something that must be exact."""
    print(f"  {name:<58} {what}  {_verdict(name, holds)}", flush=True)


def exit_code() -> int:
    """0 when nothing fell short."""
    return 1 if _missed else 0


def _line(
    name: str, value: float, unit: str, digits: int, target: str, met: bool | None = None
) -> None:
    text = f"  {name:<58} {value:>12,.{digits}f} {unit:<9}"
    if met is not None:
        text += f" {target:<16} {_verdict(name, met)}"
    print(text.rstrip(), flush=True)


def _verdict(name: str, holds: bool) -> str:
    if not holds:
        _missed.append(name)
    return "ok" if holds else "short"
