"""Reading a run folder from the web process: the end of the log, and metrics as they grow. Never through a pipe or the database.

Both read by byte offset, so a page that refreshes every two seconds reads what is new and not what it has seen.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

#: bytes looked at from the end of a log, at most
TAIL_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Tail:
    """The last lines of a file and its size in bytes. `text` has no carriage-return progress bars left in it."""

    text: str
    size: int


def tail(path: Path, num_lines: int = 200) -> Tail:
    """The last `num_lines` lines; empty when there is no such file yet."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read(TAIL_BYTES)
    except OSError:
        return Tail("", 0)
    lines = data.decode("utf-8", errors="replace").split("\n")
    if size > TAIL_BYTES:
        lines = lines[1:]  # the first one is cut
    shown = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
    while shown and not shown[-1].strip():
        shown.pop()
    return Tail("\n".join(shown[-num_lines:]), size)


@dataclass
class Metrics:
    """Series by metric name, as (step, value) in order of steps. Keep one per viewer and call `read` to catch up."""

    path: Path
    offset: int = 0
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def read(self) -> None:
        """Take in the complete lines written since the last call. A file that shrank is read anew."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self.offset:
                    self.offset, self.series = 0, {}
                file.seek(self.offset)
                data = file.read()
        except OSError:
            return
        complete = data[: data.rfind(b"\n") + 1]
        self.offset += len(complete)
        for line in complete.splitlines():
            try:
                entry = json.loads(line)
                step = float(entry["step"])
            except (ValueError, KeyError, TypeError):
                continue
            for name, value in entry.items():
                if name not in ("step", "at") and isinstance(value, int | float) and math.isfinite(value):
                    self._append(name, step, float(value))

    def _append(self, name: str, step: float, value: float) -> None:
        points = self.series.setdefault(name, [])
        # A resume from a checkpoint repeats steps: what came after the checkpoint was undone, the newer run counts.
        while points and points[-1][0] >= step:
            points.pop()
        points.append((step, value))


def downsampled(points: list[tuple[float, float]], limit: int = 300) -> list[tuple[float, float]]:
    """At most `limit` points that keep the shape: of each stretch its lowest and its highest, in order; first and last stay."""
    if len(points) <= limit:
        return points
    num_stretches = (limit - 2) // 2
    kept = [points[0]]
    inner = points[1:-1]
    for n in range(num_stretches):
        stretch = inner[n * len(inner) // num_stretches : (n + 1) * len(inner) // num_stretches]
        if stretch:
            low, high = min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])
            kept += sorted({low, high})
    return [*kept, points[-1]]
