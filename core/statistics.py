"""Small statistics of counted decisions: a share with its interval, and how many decisions are still missing. Pure."""

from __future__ import annotations

import math
from statistics import NormalDist

CONFIDENCE = 0.95
POWER = 0.80


def wilson(successes: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share; `successes` may hold halves (ties). n = 0 knows nothing: (0, 1).

    E. B. Wilson, JASA 22 (1927) 209. With ties as halves the interval is a little too wide, never too narrow.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
    return max(0.0, low), min(1.0, high)


def votes_needed(share: float = 0.6, power: float = POWER, confidence: float = CONFIDENCE) -> int:
    """Decisive votes after which a true `share` against one half is seen with this power (two-sided test of a proportion)."""
    if not 0.5 < share < 1:
        raise ValueError(f"a share of {share} is no preference")
    z_alpha, z_beta = NormalDist().inv_cdf(0.5 + confidence / 2), NormalDist().inv_cdf(power)
    return math.ceil(((z_alpha * 0.5 + z_beta * math.sqrt(share * (1 - share))) / (share - 0.5)) ** 2)
