"""The import table of the architecture, walked by AST, and the promise that the web process never loads torch."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import ROOT

FRAMEWORKS = {"streamlit", "gradio", "fastapi", "starlette", "uvicorn"}
HEAVY = {"torch", "transformers", "peft", "trl", "accelerate", "datasets", "safetensors", "sentence_transformers"}
LAYERS = ("core", "db", "app", "training", "pages")
#: core without a database: rules, arithmetic and text. Each may import only the others (and packages).
PURE = {
    "core.agreement", "core.bench_diff", "core.bench_slices", "core.calibration", "core.completions", "core.conflicts",
    "core.content", "core.deidentify", "core.desk.routing", "core.errors", "core.expansion", "core.exports.files", "core.i18n",
    "core.jobs.configs", "core.jobs.configs_ask", "core.jobs.configs_bench", "core.jobs.configs_doc2query",
    "core.jobs.configs_expansion_data", "core.jobs.configs_expansion_export", "core.jobs.configs_expansion_training",
    "core.jobs.configs_embedding", "core.jobs.configs_evaluation", "core.jobs.configs_release", "core.jobs.configs_retrieval",
    "core.jobs.configs_retrieval_evaluation", "core.jobs.configs_review", "core.jobs.configs_reward",
    "core.jobs.configs_teacher", "core.jobs.configs_training", "core.jobs.fields", "core.jobs.kinds", "core.lexicons",
    "core.mentions", "core.notices", "core.ordinal_fit", "core.outcomes", "core.prompt_sets", "core.ranking", "core.records",
    "core.retrieval.chunk", "core.retrieval.clicks", "core.retrieval.decision", "core.retrieval.failures",
    "core.retrieval.fuse", "core.retrieval.judged", "core.retrieval.metrics", "core.retrieval.prune", "core.retrieval.tokens",
    "core.retrieval.trial", "core.reward_features", "core.reward_limits", "core.reward_watch", "core.rewards", "core.rules",
    "core.sampling", "core.sequential", "core.statistics",
}  # fmt: skip
#: what pages may use of app: shared pieces, and pieces of one page that would not fit in its file
PAGE_HELPER = re.compile(r"app\.(session|i18n|desk|(\w+_)?widgets)\b")
#: the composition root, and the command line with its commands
MAY_OPEN_SESSIONS = {"app.main", "app.__main__", "app.commands"}


def modules() -> Iterator[tuple[str, Path]]:
    for layer in LAYERS:
        for path in sorted((ROOT / layer).rglob("*.py")):
            if "migrations" not in path.parts:
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Full names of what a file imports; `from a import b` counts as a.b, `if TYPE_CHECKING` not at all."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                found.update(f"{child.module}.{alias.name}" for alias in child.names)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            elif not (top_level_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
                walk(child)

    walk(ast.parse(path.read_text(encoding="utf-8")))
    return found


def root_of(name: str) -> str:
    return name.partition(".")[0]


def is_one_of(name: str, allowed: set[str]) -> bool:
    return any(name == a or name.startswith(a + ".") for a in allowed)


MODULES = dict(modules())


@pytest.mark.parametrize("name", list(MODULES))
def test_the_import_table_holds(name: str) -> None:
    layer, path = root_of(name), MODULES[name]
    used = imports(path)
    ours = {n for n in used if root_of(n) in LAYERS}
    packages = {root_of(n) for n in used} - set(LAYERS)
    if layer == "db":
        assert {n for n in ours if root_of(n) != "db" and not is_one_of(n, {"core.records", "core.errors"})} == set()
        assert not packages & (FRAMEWORKS | HEAVY)
    elif layer == "core":
        assert {n for n in ours if root_of(n) not in ("core", "db")} == set()
        allowed = FRAMEWORKS if name == "core.model_server" or name.startswith("core.serving") else set()
        assert packages & FRAMEWORKS <= allowed
        assert not {root_of(n) for n in imports(path, top_level_only=True)} & HEAVY
    elif layer == "pages":
        assert {n for n in ours if root_of(n) != "core" and not PAGE_HELPER.match(n)} == set()
        assert packages & (FRAMEWORKS | HEAVY) <= {"streamlit"}
    elif layer == "app":
        allowed_db = {"db.engine"} if name in MAY_OPEN_SESSIONS else set()
        assert {n for n in ours if root_of(n) not in ("app", "core") and not is_one_of(n, allowed_db)} == set()
        assert not packages & HEAVY
    else:
        assert {n for n in ours if root_of(n) not in ("core", "db", "training")} == set()
        assert not packages & FRAMEWORKS


@pytest.mark.parametrize("name", sorted(PURE & set(MODULES)))
def test_pure_core_knows_only_pure_core(name: str) -> None:
    ours = {n for n in imports(MODULES[name]) if root_of(n) in LAYERS}
    assert {n for n in ours if not is_one_of(n, PURE)} == set()


def test_the_web_process_loads_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys, app.main\n"
        "app.main.api.load()\n"
        f"heavy = sorted(set(sys.modules) & set({sorted(HEAVY)!r}))\n"
        "print('loaded:', heavy)\n"
        "sys.exit(bool(heavy))"
    )
    environment = {**os.environ, "CONSILIUM_HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_no_module_of_app_shadows_a_package() -> None:
    assert not {"core.py", "db.py", "pages.py", "training.py"} & {p.name for p in (ROOT / "app").iterdir()}
