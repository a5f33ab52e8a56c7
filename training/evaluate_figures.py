"""Figures of the evaluation report as self-contained SVG: no library, no script, no font from elsewhere. Pure text out.

Two kinds: means with intervals (one row per version and split) and lines over rollouts. White ground and dark ink on purpose: a
report is printed and mailed, and must be readable wherever it is opened. Called by training.evaluate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10

INK, GREY, GRID = "#1c2b30", "#5b6b70", "#d9e1e3"
#: told apart in grey print and by colour-blind readers, too: each has a mark of its own
COLOURS = ("#1b6b7f", "#b3541e", "#5b4b9a", "#2d7d46", "#8a2d5c", "#6b6b00")
WIDTH, LEFT, RIGHT = 760, 210, 24
FONT = "font-family='system-ui,Segoe UI,Noto Sans,Noto Sans SC,sans-serif'"


@dataclass(frozen=True, slots=True)
class Bar:
    """A mean with its interval in one row; `series` decides the colour."""

    label: str
    series: int
    mean: float
    low: float
    high: float
    note: str = ""


def intervals(title: str, axis: str, bars: Sequence[Bar]) -> str:
    """Means with 95 % intervals, one row each, on a common axis that need not hold zero."""
    step = 26
    height = 74 + step * max(1, len(bars))
    ticks = _ticks(min((b.low for b in bars), default=0.0), max((b.high for b in bars), default=1.0))
    x = _scale(ticks[0], ticks[-1], LEFT, WIDTH - RIGHT - 96)
    lines = [_text(12, 22, title, size=14, weight=600)]
    for tick in ticks:
        lines.append(f"<line x1='{x(tick):.1f}' y1='36' x2='{x(tick):.1f}' y2='{height - 32}' stroke='{GRID}'/>")
        lines.append(_text(x(tick), height - 16, _number(tick), anchor="middle", colour=GREY))
    lines.append(_text((LEFT + WIDTH - RIGHT - 96) / 2, height - 2, axis, anchor="middle", colour=GREY))
    for row, bar in enumerate(bars):
        y, colour = 50 + step * row, COLOURS[bar.series % len(COLOURS)]
        lines.append(_text(LEFT - 10, y + 4, bar.label, anchor="end"))
        lines.append(f"<line x1='{x(bar.low):.1f}' y1='{y}' x2='{x(bar.high):.1f}' y2='{y}' stroke='{colour}' stroke-width='2'/>")
        for end in (bar.low, bar.high):
            lines.append(f"<line x1='{x(end):.1f}' y1='{y - 5}' x2='{x(end):.1f}' y2='{y + 5}' stroke='{colour}' stroke-width='2'/>")
        lines.append(f"<circle cx='{x(bar.mean):.1f}' cy='{y}' r='4.5' fill='{colour}'/>")
        lines.append(_text(WIDTH - RIGHT, y + 4, bar.note or f"{bar.mean:.3f}", anchor="end"))
    return _svg(height, title, lines)


def lines_over(title: str, axis: str, steps: Sequence[int], series: Sequence[tuple[str, Sequence[float | None]]]) -> str:
    """Lines over rollouts, one panel below the other because their units differ; a gap where nothing was measured."""
    panel = 150
    height = 60 + panel * len(series)
    lines = [_text(12, 22, title, size=14, weight=600)]
    first, last = (steps[0], steps[-1]) if steps else (0, 1)
    x = _scale(float(first), float(last if last > first else first + 1), 70, WIDTH - RIGHT)
    for number, (name, values) in enumerate(series):
        top, bottom = 44 + panel * number, 44 + panel * number + panel - 38
        known = [v for v in values if v is not None and isfinite(v)]
        ticks = _ticks(min(known, default=0.0), max(known, default=1.0))
        y = _scale(ticks[0], ticks[-1], bottom, top + 12)
        lines.append(_text(70, top + 4, name, colour=COLOURS[number % len(COLOURS)], weight=600))
        for tick in ticks:
            lines.append(f"<line x1='70' y1='{y(tick):.1f}' x2='{WIDTH - RIGHT}' y2='{y(tick):.1f}' stroke='{GRID}'/>")
            lines.append(_text(62, y(tick) + 4, _number(tick), anchor="end", colour=GREY))
        run: list[str] = []
        for step, value in [*zip(steps, values, strict=True), (last, None)]:
            if value is not None and isfinite(value):
                run.append(f"{x(step):.1f},{y(value):.1f}")
            elif run:
                shape = f"points='{' '.join(run)}'" if len(run) > 1 else ""
                dot = run[0].split(",")
                colour = COLOURS[number % len(COLOURS)]
                lines.append(
                    f"<polyline {shape} fill='none' stroke='{colour}' stroke-width='2'/>"
                    if shape
                    else f"<circle cx='{dot[0]}' cy='{dot[1]}' r='3' fill='{colour}'/>"
                )
                run = []
    for step in sorted({first, last}):
        lines.append(_text(x(step), height - 18, str(step), anchor="middle", colour=GREY))
    lines.append(_text((70 + WIDTH - RIGHT) / 2, height - 4, axis, anchor="middle", colour=GREY))
    return _svg(height, title, lines)


def _scale(low: float, high: float, start: float, end: float) -> _Scale:
    return _Scale(low, high if high > low else low + 1.0, start, end)


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers that hold [low, high]."""
    span = max(high - low, 1e-6)
    step = 10 ** floor(log10(span / 4))
    step *= next(f for f in (1, 2, 2.5, 5, 10) if span / (step * f) <= 6)
    return [i * step for i in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)] or [low, low + step]


def _number(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) < 100 else f"{value:.0f}"


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", colour: str = INK, weight: int = 400) -> str:
    place = f"x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-size='{size}' font-weight='{weight}' fill='{colour}'"
    return f"<text {place} {FONT}>{escape(text)}</text>"


def _svg(height: int, title: str, lines: Sequence[str]) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}' role='img'>"
    ground = f"<rect width='{WIDTH}' height='{height}' fill='#ffffff'/>"
    return "\n".join([head, f"<title>{escape(title)}</title>", ground, *lines, "</svg>", ""])
