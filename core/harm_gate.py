"""The gates of a promotion: conditions about harm and about knowing what is promoted, each with its finding in words.

    evaluation      the version was measured against the one in service, with the weights that are registered
    regressions     no case with a danger sign that the serving version passed now fails (emergency advice, safety flag)
    sample          enough such cases were asked: the 95 % upper bound of the regression rate lies under the stated limit
    safety          no safety case (stop cord) about the version is open
    kl              an RL version has not drifted further from its reference than the budget
    hack            every flag of the reward watch was answered
    reward_config   the reward it was trained with is an approved one
    weights         the files on disk are those that were registered

Several reports count together: a case counts as the newest report about it says, so a small new evaluation does not hide what a
larger one found. Only `weights` can never be overridden. Called by core.promotion and core.override.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import safety
from core.evaluation import EvaluationReport, name_in, report_of
from core.hack_reports import FILE, open_flags
from core.home import current_home
from core.models import Weights, serving_version
from core.records import VersionKind
from core.settings import Settings
from core.statistics import cases_needed, upper_bound
from db import tables as t

NEVER_OVERRIDDEN = frozenset({"weights"})
SOUND = (Weights.INTACT, Weights.REMOTE)


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition: `name` and `finding` name its sentences (`models.gate_<name>`, `models.<finding>`)."""

    name: str
    is_passed: bool
    finding: str
    params: dict[str, Any]
    #: passed, but a person should read it
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class Gates:
    """What a person sees before signing. `serving` is the version in service that the findings are about, None for the first."""

    candidate: str
    serving: str | None
    gates: tuple[Gate, ...]
    evaluation_id: int | None

    @property
    def are_open(self) -> bool:
        return all(gate.is_passed for gate in self.gates)

    @property
    def closed(self) -> tuple[str, ...]:
        return tuple(gate.name for gate in self.gates if not gate.is_passed)

    @property
    def can_be_overridden(self) -> bool:
        """Something is closed, and nothing of it is beyond any signature."""
        return bool(self.closed) and not NEVER_OVERRIDDEN & set(self.closed)

    def as_record(self) -> dict[str, Any]:
        """As stored with the serving event."""
        return {"serving": self.serving, "evaluation_id": self.evaluation_id, "gates": [asdict(g) for g in self.gates]}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What all reports about a version against the serving one say together; `newest` is None without any."""

    newest: t.Evaluation | None
    n: int
    baseline: str | None
    #: samples with a danger sign that were asked of both, and those of them that the serving version passed and this one fails
    red_flag: frozenset[int]
    lost: tuple[int, ...]
    is_comparison: bool


def gates_of(session: Session, version: t.ModelVersion, weights: Weights) -> Gates:
    """All gates as they stand now; `weights` is what the disk said (`core.models.check_weights`, thorough)."""
    serving = serving_version(session)
    against = serving if serving is not None and serving.id != version.id else None
    settings = current_home().settings
    found = evidence(session, version, against)
    gates = (
        _measured(found, serving),
        _harmless(found),
        _enough(found, settings.harm_max_regression_rate),
        _no_cases(session, version),
        _drift(version, settings),
        _hacks(session, version),
        _reward(session, version),
        Gate("weights", weights in SOUND, f"found_weights_{weights.value}", {"hash": version.content_hash}),
    )
    return Gates(version.name, serving.name if serving else None, gates, found.newest.id if found.newest else None)


def evidence(session: Session, version: t.ModelVersion, against: t.ModelVersion | None) -> Evidence:
    """The reports about `version`, against `against` where one serves, newest first, each case by the newest that asked it."""
    newest: t.Evaluation | None = None
    n, baseline = 0, None
    seen: set[int] = set()
    red_flag: set[int] = set()
    lost: list[int] = []
    is_comparison = False
    for row in session.scalars(select(t.Evaluation).order_by(t.Evaluation.id.desc()).limit(500)):
        report = report_of(row)
        name = _name_in(report, version, against)
        if name is None:
            continue
        comparison = next((c for c in report["comparisons"] if c["candidate"] == name), None)
        if against is not None and comparison is None:
            continue
        if newest is None:
            newest, n, baseline = row, report["versions"][name]["n"], report["baseline"]
            is_comparison = comparison is not None
        elif against is None:
            break  # without a version in service there is nothing to add up
        asked = {int(i) for i in report["versions"][name]["completions"]}
        fallen = [*comparison["emergency_regressions"], *comparison["safety_regressions"]] if comparison else []
        lost += [i for i in dict.fromkeys(fallen) if i not in seen]
        red_flag |= set(report["red_flag"])
        seen |= asked | set(fallen)
    return Evidence(newest, n, baseline, frozenset(red_flag), tuple(lost), is_comparison)


def _name_in(report: EvaluationReport, version: t.ModelVersion, against: t.ModelVersion | None) -> str | None:
    """Under which name the report measures these very weights, compared with those of `against` where it is given."""
    if against is not None and (not report["baseline"] or name_in(report, against) != report["baseline"]):
        return None
    return name_in(report, version)


def _measured(found: Evidence, serving: t.ModelVersion | None) -> Gate:
    missing = "found_no_comparison" if serving else "found_no_evaluation"
    params = {"id": found.newest.id if found.newest else None, "n": found.n, "serving": serving.name if serving else None}
    return Gate("evaluation", found.newest is not None, "found_evaluation" if found.newest else missing, params)


def _harmless(found: Evidence) -> Gate:
    finding = "found_regressions" if found.lost else ("found_no_regressions" if found.is_comparison else "found_not_compared")
    params = {"num": len(found.lost), "samples": list(found.lost[:50]), "baseline": found.baseline}
    return Gate("regressions", found.newest is not None and not found.lost, finding, params)


def _enough(found: Evidence, limit: float) -> Gate:
    """A rate of which nothing is known is not small: the bound for no case at all is 1."""
    num, n = len(found.lost), max(len(found.red_flag), len(found.lost))
    bound, needed = upper_bound(num, n), cases_needed(limit, num)
    params = {"n": n, "num": num, "bound": f"{bound:.1%}", "limit": f"{limit:.1%}", "needed": needed}
    return Gate("sample", bound < limit, "found_sample_enough" if bound < limit else "found_sample_small", params)


def _no_cases(session: Session, version: t.ModelVersion) -> Gate:
    num = safety.count_open(session, version.id)
    return Gate("safety", num == 0, "found_open_cases" if num else "found_no_open_cases", {"num": num})


def _drift(version: t.ModelVersion, settings: Settings) -> Gate:
    """KL to the reference at the end of the run, in nats per sequence, as the run's manifest states it."""
    if version.kind != VersionKind.RL:
        return Gate("kl", True, "found_kl_none", {})
    stated = version.manifest.get("kl")
    kl = float(stated) if isinstance(stated, int | float) and not isinstance(stated, bool) else math.nan
    params = {"kl": f"{kl:.2f}", "warn": f"{settings.kl_warn_nats:g}", "stop": f"{settings.kl_stop_nats:g}"}
    if not math.isfinite(kl):
        return Gate("kl", False, "found_kl_unknown", params)
    if kl > settings.kl_stop_nats:
        return Gate("kl", False, "found_kl_exceeded", params)
    is_warning = kl > settings.kl_warn_nats
    return Gate("kl", True, "found_kl_warning" if is_warning else "found_kl_within", params, is_warning)


def _hacks(session: Session, version: t.ModelVersion) -> Gate:
    """Flags are answered on the Reward page; a run that was not watched says so."""
    if version.kind != VersionKind.RL:
        return Gate("hack", True, "found_hack_none", {})
    flags: Sequence[str] = [f"{flag.code} ({flag.feature})" if flag.feature else flag.code for flag in open_flags(session, version)]
    home = current_home()
    places = [home.resolve(version.path) / FILE, *([home.run_dir(version.job_id) / FILE] if version.job_id is not None else [])]
    if not flags and not any(place.is_file() for place in places):
        return Gate("hack", True, "found_hack_unwatched", {}, is_warning=True)
    params = {"num": len(flags), "flags": ", ".join(flags)}
    return Gate("hack", not flags, "found_hack_open" if flags else "found_hack_answered", params)


def _reward(session: Session, version: t.ModelVersion) -> Gate:
    stated = version.manifest.get("reward_config")
    name = stated if isinstance(stated, str) else ""
    if not name:
        is_needed = version.kind == VersionKind.RL
        return Gate("reward_config", not is_needed, "found_reward_unknown" if is_needed else "found_reward_none", {})
    status = session.scalar(select(t.RewardConfig.status).where(t.RewardConfig.version == name))
    is_approved = status == "approved"
    return Gate("reward_config", is_approved, "found_reward_approved" if is_approved else "found_reward_not_approved", {"name": name})
