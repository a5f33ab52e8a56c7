"""Model versions: immutable weights under a name, where they come from, and whether the disk still agrees.

Training scripts call `check_name_free` before they start and `register_version` when the weights are written; the model
server, the bench, promotion and the screens look versions up here. A name never changes its weights: only the very job that
made a version may register it again (a resumed run), and never while the version is serving.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core import audit
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.home import Home
from core.permit import permit
from core.records import Role, VersionKind, VersionStatus
from db import tables as t
from db.engine import read_session, write_session

#: Letters of any script, digits, `_ . -`, and `/` for hub names. The name is also a folder name, so no `..` and no leading dot.
NAME = re.compile(r"\w[\w.\-]*(?:/\w[\w.\-]*)*")
#: Files that decide what a model says. Optimiser states, logs and model cards may change without making it another model.
WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".gguf"})
WEIGHT_FILES = frozenset({"config.json", "generation_config.json", "adapter_config.json", "tokenizer.json", "chat_template.jinja"})
#: only such variables are ever sent to an endpoint, so that no other secret of the machine can be read through one
KEY_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,90}_API_KEY")


class Weights(StrEnum):
    """What the disk says about a version."""

    INTACT = "intact"
    CHANGED = "changed"
    MISSING = "missing"
    #: no hash was stored, so nothing can be verified
    UNKNOWN = "unknown"
    #: an external endpoint: its weights are not ours to verify
    REMOTE = "remote"


def check_name_free(session: Session, name: str, *, job_id: int | None = None) -> None:
    """Raise before any work is done when `name` cannot be registered by this job.

    Raises UserError("models.bad_name"), UserError("models.name_taken") or Conflicting("models.is_serving").
    """
    if len(name) > 100 or not NAME.fullmatch(name):
        raise UserError("models.bad_name", name=name)
    row = session.scalar(select(t.ModelVersion).where(t.ModelVersion.name == name))
    if row is None:
        return
    if not job_id or row.job_id != job_id:
        raise UserError("models.name_taken", name=name)
    if row.status == VersionStatus.SERVING:
        raise Conflicting("models.is_serving", name=name)


def register_version(
    session: Session,
    *,
    name: str,
    kind: str,
    path: str = "",
    base_version_id: int | None = None,
    parent_version_id: int | None = None,
    is_toy: bool = False,
    content_hash: str = "",
    manifest: dict[str, Any] | None = None,
    job_id: int | None = None,
    created_by: int | None = None,
    task: str = "answer",
) -> t.ModelVersion:
    """Store a version in the caller's write transaction; `path` is relative to the home (`home.relative`).

    Registering the same weights again returns the row that is there; the same job may replace its own row.
    Raises as `check_name_free`.
    """
    job_id = job_id or None  # a script started by hand has job 0, which is no row
    values: dict[str, Any] = {
        "kind": VersionKind(kind).value,
        "path": path,
        "base_version_id": base_version_id,
        "parent_version_id": parent_version_id,
        "is_toy": is_toy,
        "content_hash": content_hash,
        "manifest": manifest or {},
        "job_id": job_id,
        "created_by": created_by,
        "task": task,
    }
    row = session.scalar(select(t.ModelVersion).where(t.ModelVersion.name == name))
    if row is not None and content_hash and (row.kind, row.path, row.content_hash) == (values["kind"], path, content_hash):
        return row
    check_name_free(session, name, job_id=job_id)
    if row is not None:
        for key, value in values.items():
            setattr(row, key, value)
        session.flush()
        return row
    row = t.ModelVersion(name=name, **values)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError as error:
        raise UserError("models.name_taken", name=name) from error
    return row


def add_external(user_id: int, *, name: str, url: str, model: str, key_variable: str, note: str = "") -> str:
    """Register an OpenAI-compatible endpoint as a version. Only the NAME of the variable that holds the key is stored.

    Raises Forbidden (engineers and administrators may), UserError("models.bad_url" / "models.bad_key_variable" /
    "models.no_endpoint_model") and as `check_name_free`.
    """
    permit("models.add_external", user_id)
    url = url.strip().rstrip("/")
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", url):  # no user:password@ and no ?key= in a stored address
        raise UserError("models.bad_url")
    if key_variable and not KEY_VARIABLE.fullmatch(key_variable):
        raise UserError("models.bad_key_variable")  # the value is not echoed: it may be the key itself, pasted by mistake
    if not model.strip():
        raise UserError("models.no_endpoint_model")
    with write_session() as session:
        actor = require_role(session.get(t.User, user_id), Role.ENGINEER, Role.ADMIN)
        manifest = {"key_variable": key_variable}
        row = register_version(session, name=name.strip(), kind=VersionKind.EXTERNAL, manifest=manifest, created_by=actor.id)
        row.endpoint_url, row.endpoint_model, row.note = url, model.strip(), note.strip()
        audit.record(session, "register_external", "model_version", row.id, actor_id=actor.id, detail={"name": row.name, "url": url})
        return row.name


def get_version(session: Session, name: str) -> t.ModelVersion:
    """The version, or NotFound("models.no_such_version")."""
    row = session.scalar(select(t.ModelVersion).where(t.ModelVersion.name == name))
    if row is None:
        raise NotFound("models.no_such_version", name=name)
    return row


def serving_version(session: Session) -> t.ModelVersion | None:
    """The version that answers people now; the schema allows at most one."""
    return session.scalar(select(t.ModelVersion).where(t.ModelVersion.status == VersionStatus.SERVING))


def all_versions(session: Session) -> list[t.ModelVersion]:
    """Every version, newest first."""
    return list(session.scalars(select(t.ModelVersion).order_by(t.ModelVersion.id.desc())))


def lineage(session: Session, version: t.ModelVersion) -> list[t.ModelVersion]:
    """`version`, what it was trained from, and so on: rl -> sft -> base. Ends at a row without a parent or a base."""
    chain, seen = [version], {version.id}
    while (above := chain[-1].parent_version_id or chain[-1].base_version_id) is not None and above not in seen:
        row = session.get(t.ModelVersion, above)
        if row is None:
            break
        seen.add(row.id)
        chain.append(row)
    return chain


def weight_files(folder: Path) -> list[Path]:
    """The files under `folder` that decide what the model says, in a fixed order."""
    found = (p for p in folder.rglob("*") if p.is_file() and (p.suffix in WEIGHT_SUFFIXES or p.name in WEIGHT_FILES))
    return sorted(found, key=lambda p: p.relative_to(folder).as_posix())


def folder_hash(path: Path | str) -> str:
    """SHA-256 over names and contents of the weight files. Raises NotFound("models.no_weights") when there are none."""
    folder = Path(path)
    digest = hashlib.sha256()
    files = weight_files(folder)
    if not files:
        raise NotFound("models.no_weights", path=folder)
    for file in files:
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(str(file.stat().st_size).encode() + b"\0")
        for block in _blocks(file):
            digest.update(block)
    return digest.hexdigest()


def check_weights(home: Home, version: t.ModelVersion, *, is_thorough: bool = False) -> Weights:
    """Whether the weights on disk are those that were registered.

    Reads everything once per (size, modification time) of the files; `is_thorough` reads again in any case, as promotion does.
    """
    if version.kind == VersionKind.EXTERNAL:
        return Weights.REMOTE
    if not version.content_hash:
        return Weights.UNKNOWN
    folder = home.resolve(version.path)
    try:
        stamp = tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in weight_files(folder))
        if not stamp:
            return Weights.MISSING
        found = folder_hash(folder) if is_thorough else _hash_of(str(folder), stamp)
    except (OSError, NotFound):  # removed while we looked
        return Weights.MISSING
    return Weights.INTACT if found == version.content_hash else Weights.CHANGED


def require_role(actor: t.User | None, *roles: Role) -> t.User:
    """The actor as stored now, or Forbidden: a role taken away counts at once, whatever the page believed."""
    if actor is None or not actor.is_active or actor.role not in roles:
        raise Forbidden("forbidden")
    return actor


def check_role(user_id: int | None, *roles: Role) -> None:
    """As `require_role`, for a use case that has not opened its transaction yet; None is the command line, which may do all."""
    if user_id is not None:
        with read_session() as session:
            require_role(session.get(t.User, user_id), *roles)


@lru_cache(maxsize=64)
def _hash_of(folder: str, _stamp: tuple[tuple[str, int, int], ...]) -> str:
    return folder_hash(folder)


def _blocks(file: Path, size: int = 1 << 20) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(size):
            yield block
