"""What the source and the running application offer to people: use cases that write, routes, handlers. For the role matrix."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from starlette.routing import Mount, WebSocketRoute

from core.accounts import Person
from core.preference import Ballot, Decoding
from core.records import RewardConfig, Vote
from core.settings import ROOT

WEIGHTS = RewardConfig("v9", 0.2, 0.4, 0.15, 0.25, 0.3)


def routes(app: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(method, path) of every route that any of the mounted applications declares, and of every websocket."""
    for route in getattr(app, "routes", []):
        if hasattr(route, "original_router"):  # FastAPI keeps an included router whole
            yield from routes(route.original_router, prefix + route.include_context.prefix)
        elif isinstance(route, Mount):
            yield ("GET", f"{prefix}{route.path}/file.txt")
            yield from routes(route.app, prefix + route.path)
        elif isinstance(route, WebSocketRoute):
            yield ("WEBSOCKET", prefix + route.path)
        elif hasattr(route, "path"):
            for method in sorted(route.methods or {"GET"}):
                yield (method, prefix + route.path)


@cache
def _source() -> dict[tuple[str, str], ast.FunctionDef]:
    """(module, name) -> top-level function of core."""
    found = {}
    for path in sorted((ROOT / "core").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                found[module, node.name] = node
    return found


def _names(path: Path) -> dict[str, tuple[str, str | None]]:
    names: dict[str, tuple[str, str | None]] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("core"):
            names.update({alias.asname or alias.name: (node.module, alias.name) for alias in node.names})
    return names


def _called(node: ast.AST, names: Mapping[str, tuple[str, str | None]], module: str = "") -> Iterator[tuple[str, str]]:
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name) and child.value.id in names:
            above, name = names[child.value.id]
            yield (f"{above}.{name}", child.attr)
        elif isinstance(child, ast.Name):
            yield (module, child.id) if child.id not in names else (names[child.id][0], str(names[child.id][1]))


@cache
def writing() -> frozenset[tuple[str, str]]:
    """Functions of core that write to the database, directly or through others."""
    source = _source()
    calls = {
        key: set(_called(node, _names(ROOT / (key[0].replace(".", "/") + ".py")), key[0])) & set(source) for key, node in source.items()
    }
    found = {key for key, node in source.items() if "write_session()" in ast.unparse(node)}
    while more := {key for key, used in calls.items() if key not in found and used & found}:
        found |= more
    return frozenset(found)


def use_cases() -> dict[str, set[str]]:
    """ "module.function" -> the files of pages and app that name it: every public function of core that writes and that a screen,
    a route, a handler or a command can reach."""
    found: dict[str, set[str]] = {}
    for folder in ("app", "pages"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for key in set(_called(tree, _names(path))) & writing():
                found.setdefault(".".join(key), set()).add(path.relative_to(ROOT).as_posix())
    return found


#: arguments that pass a use case's own checks, where it looks at them before it looks at who asks
ARGUMENTS: dict[str, dict[str, Any]] = {
    "core.accounts.set_role": {"role": "product"},
    "core.accounts.set_active": {"is_active": True},
    "core.ask_feedback.give_feedback": {"kind": "up"},
    "core.bench_batches.export": {"form": "csv"},
    "core.bench_batches.start": {"values": {"name": "n", "first": "a", "second": "b", "dataset": "d"}},
    "core.desk.assigning.assign_cases": {"case_ids": [1], "way": "open"},
    "core.desk.followups.close": {"answer": "because it is so"},
    "core.exports.service.make": {"kind": "kto"},
    "core.guidelines.answer_flag": {"answer": "because it is so"},
    "core.guidelines.flag": {"note": "because it is so"},
    "core.guidelines.publish": {"text_en": "x", "text_zh": "y", "note": "because it is so"},
    "core.hack_reports.answer": {"answer": "accepted", "reason": "because it is so"},
    "core.lineage.retract": {"reason": "because it is so"},
    "core.models.add_external": {"url": "https://models.example/v1"},
    "core.override.decline": {"reason": "because it is so"},
    "core.preference.cast": {"ballot": Ballot("key-1", Vote.LEFT)},
    "core.preference.open_pair": {"first": "a", "second": "b", "mode": "blind", "decoding": Decoding(0.2, 7, 64)},
    "core.quarantine.decide": {"ids": [1], "decision": "drop", "reason": "because it is so"},
    "core.quarantine.set_policy": {"action": "surrogate", "reason": "because it is so"},
    "core.retrieval_reports.correct": {"category": "other"},
    "core.retrieval_trials.advance": {"reason": "because it is so"},
    "core.reward_configs.propose": {"weights": WEIGHTS, "reason": "because it is so"},
    "core.rooms.give": {"verdict": "minor"},
    "core.rooms.open_room": {"case_ids": [1, 2], "conflict_ids": [1, 2], "member_ids": [1, 2]},
    "core.watch.dismiss": {"reason": "because it is so"},
    "core.webhooks.create": {"url": "https://hooks.example/x", "events": ["case.opened"]},
}


def call(name: str, actor: Callable[[Any], Any]) -> None:
    """The use case with `actor` and the emptiest arguments its signature allows; raises what it raises."""
    module, _, attribute = name.rpartition(".")
    function: Callable[..., Any] = getattr(import_module(module), attribute)
    hints = get_type_hints(function, localns={"Person": Person, "Mapping": Mapping, "Any": Any})
    parameters = inspect.signature(function).parameters
    acting = next((one for one in ("by", "created_by", "person", "user_id") if one in parameters), None)
    keywords = {
        one.name: actor(hints[one.name]) if one.name == acting else ARGUMENTS.get(name, {}).get(one.name, _empty(hints[one.name]))
        for one in parameters.values()
        if one.name == acting or one.default is inspect.Parameter.empty or one.name in ARGUMENTS.get(name, {})
    }
    function(**keywords)


def _empty(kind: Any) -> Any:
    text = str(kind)
    if kind in (int, float):
        return kind(1)
    if kind is bool:
        return False
    if kind is date:
        return date(2026, 1, 1)
    if kind is str or text.startswith("typing.Literal"):
        return "x"
    if kind is bytes:
        return b""
    if kind is Path:
        return Path("/nonexistent")
    if "Sequence" in text or "Iterable" in text or text.startswith("list"):
        return []
    if "dict" in text or "Mapping" in text:
        return {}
    if text.endswith("| None"):
        return None
    return object()
