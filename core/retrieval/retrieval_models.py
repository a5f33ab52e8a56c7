"""The models of retrieval by name: embeddings, rerankers, question writers, expanders. One row each, weights under models/retrieval/NAME.

Invariant: the weights under a name never change once registered (the same job may finish what it began); the hash says so.
A new model is a candidate; the gate (`core.retrieval.trial`) accepts or refuses it and says why. Called by the training jobs,
by `encoders` and `rerankers` when a name is opened, and by the pages that list them.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import select

from core import audit
from core.errors import NotFound, Unavailable, UserError
from core.home import Home, current_home
from core.models import KEY_VARIABLE, require_role
from core.records import Role
from db import tables as t
from db.engine import read_session, write_session

Kind = Literal["embedding", "reranker", "doc2query", "expander"]
Status = Literal["candidate", "accepted", "refused", "retired"]
#: names that are always there and have no row
BUILT_IN = frozenset({"minilm-en"})
NAME = re.compile(r"^\w[\w.-]{0,99}$")
URL = re.compile(r"https?://[^\s/@?#]+(/[^\s?#]*)?")


def models_folder(home: Home, name: str) -> Path:
    """Where the weights of `name` lie, or will."""
    return home.models / "retrieval" / name


def check_name(name: str, *, job_id: int | None = None) -> None:
    """May a job register `name`? Raises UserError("embedding.bad_name" / "embedding.name_taken")."""
    if not NAME.match(name):
        raise UserError("embedding.bad_name", name=name)
    row = _find(name)
    if name in BUILT_IN or (row is not None and (not job_id or row.job_id != job_id)):
        raise UserError("embedding.name_taken", name=name)


def register(
    home: Home,
    *,
    kind: Kind,
    name: str,
    form: str,
    folder: Path,
    base: str = "",
    metrics: dict[str, Any] | None = None,
    manifest: dict[str, Any] | None = None,
    job_id: int | None = None,
) -> t.RetrievalModel:
    """Store a finished model, as a candidate. `folder` lies in the home; its files are hashed.

    The same weights again return the row that is there; the same job may replace its own row. Raises as `check_name`.
    """
    digest, path = digest_of(folder), home.relative(folder)
    row = _find(name)
    if row is not None and (row.kind, row.path, row.content_hash) == (kind, path, digest):
        return row
    check_name(name, job_id=job_id)
    values: dict[str, Any] = {"kind": kind, "form": form, "path": path, "content_hash": digest, "base": base}
    values |= {"metrics": metrics or {}, "manifest": manifest or {}, "job_id": job_id or None}
    with write_session() as session:
        row = session.scalar(select(t.RetrievalModel).where(t.RetrievalModel.name == name))
        if row is None:
            row = t.RetrievalModel(name=name, **values)
            session.add(row)
        else:
            for key, value in values.items():
                setattr(row, key, value)
        session.flush()
        return row


def add_endpoint(user_id: int, *, name: str, url: str, model: str, key_variable: str, dimension: int = 0) -> str:
    """Register an OpenAI-compatible /embeddings endpoint. Only the NAME of the variable that holds the key is stored.

    `url` ends before /embeddings (https://api.openai.com/v1); `dimension` 0 means the model's own. Engineers and administrators.
    Raises Forbidden, UserError("models.bad_url" / "models.bad_key_variable" / "models.no_endpoint_model") and as `check_name`.
    """
    url, name = url.strip().rstrip("/"), name.strip()
    if not URL.fullmatch(url):
        raise UserError("models.bad_url")
    if key_variable and not KEY_VARIABLE.fullmatch(key_variable):
        raise UserError("models.bad_key_variable")
    if not model.strip():
        raise UserError("models.no_endpoint_model")
    check_name(name)
    manifest = {"url": url, "model": model.strip(), "key_variable": key_variable, "dimension": dimension}
    with write_session() as session:
        actor = require_role(session.get(t.User, user_id), Role.ENGINEER, Role.ADMIN)
        row = t.RetrievalModel(kind="embedding", name=name, form="api", manifest=manifest, status="accepted")
        session.add(row)
        session.flush()
        audit.record(session, "register_embedding", "retrieval_model", row.id, actor_id=actor.id, detail={"name": name, "url": url})
    return name


def get(name: str, kind: Kind | None = None) -> t.RetrievalModel:
    """The row, or NotFound("embedding.no_such_model")."""
    row = _find(name)
    if row is None or (kind is not None and row.kind != kind):
        raise NotFound("embedding.no_such_model", name=name)
    return row


def listing(kind: Kind | None = None) -> list[t.RetrievalModel]:
    """Every registered model, newest first. The built-in ones (`BUILT_IN`) have no row."""
    query = select(t.RetrievalModel).order_by(t.RetrievalModel.id.desc())
    with read_session() as session:
        return list(session.scalars(query if kind is None else query.where(t.RetrievalModel.kind == kind)))


def set_status(name: str, status: Status, reason: str, *, actor_id: int | None = None) -> None:
    """Say what the gate, or a person, decided. Raises NotFound("embedding.no_such_model")."""
    with write_session() as session:
        row = session.scalar(select(t.RetrievalModel).where(t.RetrievalModel.name == name))
        if row is None:
            raise NotFound("embedding.no_such_model", name=name)
        detail = {"name": name, "from": row.status, "to": status, "reason": reason}
        row.status, row.reason = status, reason
        audit.record(session, "judge_retrieval_model", "retrieval_model", row.id, actor_id=actor_id, detail=detail)


def weights_of(row: t.RetrievalModel, home: Home | None = None) -> Path:
    """The folder of a registered model, its files verified against the hash (read once per change on disk).

    Raises Unavailable("embedding.weights_missing" / "embedding.weights_changed").
    """
    folder = (home or current_home()).resolve(row.path)
    if not row.path or not folder.is_dir():
        raise Unavailable("embedding.weights_missing", name=row.name, path=folder)
    if digest_of(folder) != row.content_hash:
        raise Unavailable("embedding.weights_changed", name=row.name)
    return folder


def digest_of(folder: Path) -> str:
    """SHA-256 over names and contents of all files of a model's folder, but for its readme."""
    stamp = tuple((f.relative_to(folder).as_posix(), f.stat().st_size, f.stat().st_mtime_ns) for f in _files(folder))
    return _digest(str(folder), stamp)


@lru_cache(maxsize=64)
def _digest(folder: str, stamp: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, size, _ in stamp:
        digest.update(f"{name}\0{size}\0".encode())
        with (Path(folder) / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "README.md" and not p.name.endswith(".pyc"))


def _find(name: str) -> t.RetrievalModel | None:
    with read_session() as session:
        return session.scalar(select(t.RetrievalModel).where(t.RetrievalModel.name == name))
