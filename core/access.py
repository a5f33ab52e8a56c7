"""Who may do what: every address of the web process and every screen, with the roles it is for. What stands nowhere here is closed.

The guard asks `door` at each request, before any framework sees it; the shell registers pages from `SCREENS`. A program's token
opens a door only when its owner's role does and its scopes name the door's area. `tests/api/test_role_matrix.py` takes the
addresses from the running application and the use cases from the source and fails on one that is in no table.

Use cases check the role themselves, against the account as stored now (`core.models.require_role`): this table is the outer door.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from core.records import Role

EVERYONE = frozenset(Role)
CLINICIAN = frozenset({Role.CLINICIAN, Role.ADMIN})
ENGINEER = frozenset({Role.ENGINEER, Role.ADMIN})
BENCH = frozenset({Role.PRODUCT, Role.ENGINEER, Role.ADMIN})
ADMIN = frozenset({Role.ADMIN})

#: what a token can be given, each as ":read" and ":write"
AREAS = ("ask", "desk", "exports", "jobs", "reward", "webhooks")
SCOPES = tuple(f"{area}:{mode}" for area in AREAS for mode in ("read", "write"))
#: for every program, whatever its scopes: who am I, what runs here
ANY_TOKEN = "any"  # noqa: S105 - a word of the table


@dataclass(frozen=True, slots=True)
class Door:
    """`roles` None: for everybody, signed in or not. `scope` is what a token needs; "": for people only, never for a token.

    A door with `is_plain` lets people pass who must still choose a password.
    """

    roles: frozenset[Role] | None
    scope: str = ""
    is_plain: bool = False


def _people(roles: frozenset[Role]) -> Door:
    return Door(roles)


PUBLIC = Door(None, is_plain=True)

#: (methods, address) -> door. {} stands for one part of an address, a * at the end for all that lies below. What /metrics and
#: /api/ready tell beyond a word they check themselves.
DOORS: dict[tuple[str, str], Door] = {
    # signing in
    ("GET POST", "/login"): PUBLIC,
    ("GET POST", "/login/once/{}"): PUBLIC,
    ("GET POST", "/login/password"): PUBLIC,
    ("GET", "/login/oidc/start"): PUBLIC,
    ("GET", "/login/oidc/callback"): PUBLIC,
    ("POST", "/logout"): Door(EVERYONE, is_plain=True),
    ("GET", "/assets/web/*"): PUBLIC,
    # REST
    ("GET", "/api/health"): PUBLIC,
    ("GET", "/api/ready"): PUBLIC,
    ("GET", "/metrics"): PUBLIC,
    ("POST", "/api/session"): PUBLIC,
    ("DELETE", "/api/session"): _people(EVERYONE),
    ("GET", "/api/me"): Door(EVERYONE, ANY_TOKEN),
    ("GET", "/api/version"): Door(EVERYONE, ANY_TOKEN),
    ("GET", "/api/docs"): _people(EVERYONE),
    ("GET", "/api/openapi.json"): Door(EVERYONE, ANY_TOKEN),
    ("POST", "/api/ask"): Door(EVERYONE, "ask:write"),
    ("POST", "/api/ask/{}/feedback"): Door(EVERYONE, "ask:write"),
    ("GET", "/api/v1/models"): Door(EVERYONE, "ask:read"),
    ("POST", "/api/v1/chat/completions"): Door(EVERYONE, "ask:write"),
    ("POST", "/api/desk"): Door(CLINICIAN, "desk:write"),
    ("GET", "/api/exports"): Door(BENCH, "exports:read"),
    ("POST", "/api/exports"): Door(BENCH, "exports:write"),
    ("GET", "/api/exports/kinds"): Door(BENCH, "exports:read"),
    ("GET", "/api/exports/{}/file"): Door(BENCH, "exports:read"),
    ("GET", "/api/exports/{}/manifest"): Door(BENCH, "exports:read"),
    ("GET", "/api/jobs"): Door(ENGINEER, "jobs:read"),
    ("POST", "/api/jobs"): Door(ENGINEER, "jobs:write"),
    ("GET", "/api/jobs/{}"): Door(ENGINEER, "jobs:read"),
    ("GET", "/api/jobs/{}/log"): Door(ENGINEER, "jobs:read"),
    ("POST", "/api/jobs/{}/cancel"): Door(ENGINEER, "jobs:write"),
    ("POST", "/api/jobs/{}/retry"): Door(ENGINEER, "jobs:write"),
    ("POST", "/api/reward"): Door(ENGINEER, "reward:write"),
    ("GET", "/api/webhooks"): Door(ADMIN, "webhooks:read"),
    ("POST", "/api/webhooks"): Door(ADMIN, "webhooks:write"),
    ("PATCH DELETE", "/api/webhooks/{}"): Door(ADMIN, "webhooks:write"),
    # Gradio: what the bench's page uses; uploads, proxies, the editor, monitoring and named endpoints stay closed
    ("GET", "/arena"): _people(BENCH),
    ("GET", "/arena/"): _people(BENCH),
    ("GET", "/arena/config"): _people(BENCH),
    ("GET", "/arena/theme.css"): _people(BENCH),
    ("GET", "/arena/favicon.ico"): _people(BENCH),
    ("GET", "/arena/manifest.json"): _people(BENCH),
    ("GET", "/arena/static/*"): _people(BENCH),
    ("GET", "/arena/assets/*"): _people(BENCH),
    ("GET", "/arena/svelte/*"): _people(BENCH),
    ("GET", "/arena/gradio_api/info"): _people(BENCH),
    ("GET", "/arena/gradio_api/app_id"): _people(BENCH),
    ("GET", "/arena/gradio_api/theme.css"): _people(BENCH),
    ("GET", "/arena/gradio_api/startup-events"): _people(BENCH),
    ("GET", "/arena/gradio_api/heartbeat/{}"): _people(BENCH),
    ("POST", "/arena/gradio_api/queue/join"): _people(BENCH),
    ("GET", "/arena/gradio_api/queue/data"): _people(BENCH),
    ("GET", "/arena/gradio_api/queue/status"): _people(BENCH),
    ("POST", "/arena/gradio_api/cancel"): _people(BENCH),
    ("POST", "/arena/gradio_api/reset"): _people(BENCH),
    # Streamlit: one socket for all pages; which page and what is on it is decided per run (SCREENS, require)
    ("GET", "/"): _people(EVERYONE),
    ("GET", "/{}"): _people(EVERYONE),
    ("WEBSOCKET", "/_stcore/stream"): _people(EVERYONE),
    ("GET", "/_stcore/health"): _people(EVERYONE),
    ("GET", "/_stcore/host-config"): _people(EVERYONE),
    ("GET", "/_stcore/metrics"): _people(ENGINEER),
    ("PUT DELETE", "/_stcore/upload_file/{}/{}"): _people(EVERYONE),
    ("GET", "/_stcore/bidi-components/*"): _people(EVERYONE),
    ("GET", "/component/*"): _people(EVERYONE),
    ("GET", "/media/*"): _people(EVERYONE),
    ("GET", "/static/*"): _people(EVERYONE),
    ("GET", "/favicon.png"): _people(EVERYONE),
}

#: addresses of one part that are no page of Streamlit's
NO_PAGES = frozenset({"api", "arena", "assets", "login", "logout", "auth", "oauth2callback", "component", "media", "static", "_stcore"})


PROMOTERS = frozenset({Role.PRODUCT, Role.ADMIN})
EDITORS = frozenset({Role.CLINICIAN, Role.ENGINEER, Role.ADMIN})
SIGNERS = frozenset({Role.PRODUCT, Role.CLINICIAN, Role.ADMIN})

#: everything that changes something and that a page, a route, a handler or a command can reach: module.function of core -> roles.
#: Checked inside each of them before anything else (`core.permit`, `require_role`); further limits (one's own pair, the host of a room,
#: not one's own proposal) stand in the use case.
USE_CASES: dict[str, frozenset[Role]] = {
    "accounts.create_user": ADMIN,
    "accounts.make_link": ADMIN,
    "accounts.set_active": ADMIN,
    "accounts.set_role": ADMIN,
    "ask.ask": EVERYONE,
    "ask_feedback.give_feedback": EVERYONE,
    "bench_batches.export": BENCH,
    "bench_batches.file_case": BENCH,
    "bench_batches.start": BENCH,
    "bench_questions.own_question": BENCH,
    "bench_tour.mark_seen": EVERYONE,
    "desk.arbitration.rule": CLINICIAN,
    "desk.assigning.assign_cases": ADMIN,
    "desk.followups.close": EVERYONE,
    "desk.mailbox.deliver": CLINICIAN,
    "desk.plan.assign": ADMIN,
    "desk.teacher_tests.run": ENGINEER,
    "expansion.prompts.apply": ENGINEER,
    "expansion.sets.assign_splits": ENGINEER,
    "expansion.sets.fix": EDITORS,
    "expansion.sets.reject": EDITORS,
    "expansion.sets.restore": EDITORS,
    "expansion.sets.store": ENGINEER,
    "exports.service.make": BENCH,
    "guidelines.answer_flag": ADMIN,
    "guidelines.flag": EVERYONE,
    "guidelines.publish": ADMIN,
    "hack_reports.answer": ENGINEER,
    "identities.set_email": ADMIN,
    "importing.browse.start_import": ENGINEER,
    "inspection.make": PROMOTERS,
    "jobs.views.put_schedule": ENGINEER,
    "jobs.views.run_again": ENGINEER,
    "jobs.views.start": ENGINEER,
    "jobs.views.start_demo": ENGINEER,
    "jobs.views.stop": ENGINEER,
    "jobs.views.switch_schedule": ENGINEER,
    "lineage.retract": CLINICIAN,
    "models.add_external": ENGINEER,
    "override.countersign": CLINICIAN,
    "override.decline": SIGNERS,
    "override.request_override": PROMOTERS,
    "prediction.start": BENCH,
    "preference.cast": BENCH,
    "preference.open_pair": BENCH,
    "promotion.promote": PROMOTERS,
    "promotion.roll_back": PROMOTERS,
    "quarantine.decide": ENGINEER,
    "quarantine.set_policy": ADMIN,
    "release.load": ENGINEER,
    "retrieval.index_versions.activate": ENGINEER,
    "retrieval_reports.correct": EVERYONE,
    "retrieval_reports.revalidate_monthly": ENGINEER,
    "retrieval_trials.advance": ENGINEER,
    "retrieval_trials.promote": ENGINEER,
    "retrieval_trials.roll_back": ENGINEER,
    "retrieval_trials.start": ENGINEER,
    "retrieval_trials.stop": ENGINEER,
    "reward_configs.approve": ADMIN,
    "reward_configs.propose": ENGINEER,
    "reward_configs.reject": ENGINEER,
    "rooms.advance": CLINICIAN,
    "rooms.give": CLINICIAN,
    "rooms.open_room": CLINICIAN,
    "safety.close": CLINICIAN,
    "search_plans.set_plan": ENGINEER,
    "teacher.exchange.import_lines": ENGINEER,
    "teacher.proposals.decide": ENGINEER,
    "teacher.report.close_alarm": ENGINEER,
    "teacher.report.set_price": ENGINEER,
    "tokens.create": EVERYONE,
    "tokens.revoke": EVERYONE,
    "watch.accept": PROMOTERS,
    "watch.dismiss": PROMOTERS,
    "webhooks.create": ADMIN,
    "webhooks.remove": ADMIN,
    "webhooks.set_active": ADMIN,
}


@dataclass(frozen=True, slots=True)
class Screen:
    """One page: file in pages/, url, icon, the roles that see it and the menu it stands in ("": the bar)."""

    file: str
    url: str
    icon: str
    roles: frozenset[Role]
    section: str = ""


#: what people open every day stands in the bar itself; the rest under three headings, so that the bar fits on a laptop
SCREENS = (
    Screen("home", "home", "home", EVERYONE),
    Screen("case_desk", "desk", "clinical_notes", CLINICIAN),
    Screen("bench", "bench", "compare", BENCH),
    Screen("jobs", "jobs", "play_circle", ENGINEER),
    Screen("ask", "ask", "search", EVERYONE),
    Screen("arbitration", "arbitration", "gavel", CLINICIAN, "review"),
    Screen("guideline", "guideline", "menu_book", EVERYONE, "review"),
    Screen("followups", "followups", "task_alt", EVERYONE, "review"),
    Screen("assignments", "assignments", "assignment_ind", ADMIN, "review"),
    Screen("agreement", "agreement", "groups", EVERYONE, "review"),
    Screen("models", "models", "deployed_code", EVERYONE, "models"),
    Screen("evaluations", "evaluations", "monitoring", EVERYONE, "models"),
    Screen("retrieval", "retrieval", "stairs", EVERYONE, "models"),
    Screen("expansion", "expansion", "manage_search", BENCH, "models"),
    Screen("expansion_data", "expansion_data", "checklist", frozenset({Role.CLINICIAN, Role.ENGINEER, Role.ADMIN}), "models"),
    Screen("training_run", "run", "query_stats", BENCH, "models"),
    Screen("reward", "reward", "balance", BENCH, "models"),
    Screen("teacher", "teacher", "school", BENCH, "models"),
    Screen("data", "data", "database", ENGINEER, "data"),
    Screen("exports", "exports", "download", BENCH, "data"),
    Screen("audit", "record", "history_edu", frozenset({Role.PRODUCT, Role.ADMIN}), "data"),
    Screen("settings", "settings", "settings", EVERYONE),
)


def door(method: str, path: str) -> Door | None:
    """The door of an address, or None where there is none. `method` is an HTTP method or WEBSOCKET; HEAD and OPTIONS are as GET.

    An address that is not written in its plain form (`..`, `//`, a backslash) has no door.
    """
    if "\\" in path or "\0" in path:
        return None
    return _find("GET" if method in ("HEAD", "OPTIONS") else method, path)


@lru_cache(maxsize=4096)
def _find(method: str, path: str) -> Door | None:
    parts = path.split("/")[1:]
    if any(part in (".", "..") for part in parts) or "" in parts[:-1]:
        return None
    for (methods, pattern), found in DOORS.items():
        if method in methods.split() and _fits(pattern.split("/")[1:], parts):
            return found
    return None


def _fits(pattern: list[str], parts: list[str]) -> bool:
    if pattern[-1] == "*":
        if len(parts) < len(pattern) or parts[-1] == "":
            return False
        pattern, parts = pattern[:-1], parts[: len(pattern) - 1]
    if pattern == ["{}"] and (parts[0] in NO_PAGES or "." in parts[0]):
        return False
    return len(pattern) == len(parts) and all(want == got or (want == "{}" and got) for want, got in zip(pattern, parts, strict=True))


def may(found: Door, role: str, scopes: frozenset[str] | None) -> bool:
    """Whether a person of `role`, or with `scopes` a token of theirs, may pass. Not for doors without roles."""
    if found.roles is None or role not in found.roles:
        return found.roles is None
    return scopes is None or found.scope == ANY_TOKEN or found.scope in scopes


def screens_of(role: str) -> list[Screen]:
    """The pages that a role sees, in the order of the menu."""
    return [screen for screen in SCREENS if role in screen.roles]
