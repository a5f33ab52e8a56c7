"""Release packages: writing one from a version, verifying one, and bringing one into this data folder.

A package is a folder that answers "what is this, what was it trained on, how good is it, what got worse" without this program,
and that loads byte for byte (core.release_files). It is written into a scratch folder and renamed when its manifest stands, so
a package that exists is whole. Called by the job kind package (training.package), the command line and the Models page.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit, release_files, release_texts
from core.errors import Conflicting, NotFound, UserError
from core.evaluation import newest_covering, report_of
from core.home import Home
from core.models import NAME, Weights, check_name_free, check_weights, get_version, lineage, register_version, require_role
from core.permit import permit
from core.policy import base_location
from core.records import Role, VersionKind
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

#: taken from the run that made the version, from its folder or from beside the weights; a missing one is named in the manifest
RUN_FILES = (
    *("rewards.csv", "kl_metrics.json", "teacher_usage.csv", "samples.jsonl"),
    *("estimate.json", "actuals.json", "hack_watch.json"),
)
#: of these the seeds of the product say that a release has them
EXPECTED = frozenset({"rewards.csv", "kl_metrics.json", "teacher_usage.csv"})


@dataclass(frozen=True, slots=True)
class ReleaseShown:
    """One package as the Models page lists it. `path` is as stored: relative to the data folder where it lies inside."""

    id: int
    name: str
    version: str
    path: str
    manifest_hash: str
    origin: str
    created_at: datetime


def build(
    home: Home, version_name: str, name: str, *, out: Path | None = None, with_base: bool = False, job_id: int = 0, by: int | None = None
) -> Path:
    """Write the package `name` of a version and return its folder; inside the data folder it becomes a version of that name too.

    Raises NotFound("models.no_such_version"), UserError("release.not_an_adapter" / "release.weights_not_intact" /
    "release.folder_taken" / "release.base_not_here" / "release.unsafe_file") and as `core.models.check_name_free`.
    """
    target = (out / name if out else home.models / "rl" / name).resolve()
    is_inside = target.is_relative_to(home.root.resolve())
    with read_session() as session:
        if len(name) > 100 or not NAME.fullmatch(name) or "/" in name:
            raise UserError("models.bad_name", name=name)
        if is_inside:
            check_name_free(session, name, job_id=job_id)
        version = get_version(session, version_name)
        base = session.get(t.ModelVersion, version.base_version_id) if version.base_version_id else None
        chain = lineage(session, version)
    if base is None or not (home.resolve(version.path) / "adapter_config.json").is_file():
        raise UserError("release.not_an_adapter", name=version.name)
    if (found := check_weights(home, version, is_thorough=True)) is not Weights.INTACT:
        raise UserError("release.weights_not_intact", name=version.name, found=found.value)
    _check_free(target, job_id)
    base_folder = Path(base_location(home, base.path))
    if with_base and not base_folder.is_dir():
        raise UserError("release.base_not_here", name=base.name)

    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f".{name}.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        weights = home.resolve(version.path)
        absent = _copy_run_files(home, version, weights, scratch)
        release_files.copy_tree(base_folder, scratch / release_files.BASE) if with_base else None
        about = _about(name, chain, base, base_folder, job_id, is_self_contained=with_base, absent=absent)
        with read_session() as session:
            _write_texts(session, home, chain, about, scratch)
        digest = release_files.write_manifest(scratch, about)
        if target.exists():
            shutil.rmtree(target)  # the same job, run again: `_check_free`
        scratch.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _register(home, target, name, about, digest, origin="built", job_id=job_id, by=by, parent=version, is_servable=is_inside)
    return target


def load(home: Home, folder: Path, *, by: int | None = None, base: str = "") -> str:
    """Verify a package, copy it into the data folder and register it; returns the name of the version it became.

    The base is found by its hash among the versions here (or must be `base`), else taken from a self-contained package.
    Raises as `release_files.verify`, UserError("release.wrong_base"), NotFound("release.base_missing") and as `register_version`.
    """
    permit("release.load", by)
    if by is not None:
        with read_session() as session:
            require_role(session.get(t.User, by), Role.ADMIN, Role.ENGINEER)
    folder = folder.expanduser().resolve()
    manifest = release_files.verify(folder)
    name = str(manifest["name"])
    target = home.models / "rl" / name
    with read_session() as session:
        known = session.scalar(select(t.Release).where(t.Release.name == name))
        if known is not None and known.manifest_hash != release_files.manifest_hash(folder):
            raise Conflicting("release.name_taken", name=name)
        taken = session.scalar(select(t.ModelVersion).where(t.ModelVersion.name == name))
        if taken is not None and taken.content_hash != manifest["version"]["content_hash"]:
            raise UserError("models.name_taken", name=name)
    base_row = _find_base(home, manifest, base) or _install_base(home, folder, manifest, by)
    if folder != target.resolve():
        scratch = target.parent / f".{name}.{os.getpid()}"
        shutil.rmtree(scratch, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            release_files.copy_tree(folder, scratch)
            release_files.verify(scratch)
            if target.exists():
                shutil.rmtree(target)
            scratch.replace(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    digest = release_files.manifest_hash(target)
    _register(home, target, name, manifest, digest, origin="loaded", job_id=0, by=by, parent=None, base=base_row, is_servable=True)
    return name


def verify_registered(home: Home, name: str) -> dict[str, Any]:
    """Check every byte of a package known here, and that its manifest is the one that was registered.

    Raises NotFound("release.no_such_release"), UserError("release.manifest_changed") and as `release_files.verify`.
    """
    with read_session() as session:
        row = session.scalar(select(t.Release).where(t.Release.name == name))
    if row is None:
        raise NotFound("release.no_such_release", name=name)
    folder = home.resolve(row.path)
    manifest = release_files.verify(folder)
    if release_files.manifest_hash(folder) != row.manifest_hash:
        raise UserError("release.manifest_changed", path=folder)
    return manifest


def listing() -> list[ReleaseShown]:
    """Every package known here, newest first."""
    query = select(t.Release, t.ModelVersion.name).join(t.ModelVersion, t.ModelVersion.id == t.Release.version_id)
    with read_session() as session:
        return [
            ReleaseShown(r.id, r.name, version, r.path, r.manifest_hash, r.origin, r.created_at)
            for r, version in session.execute(query.order_by(t.Release.id.desc()))
        ]


def _check_free(target: Path, job_id: int) -> None:
    """A folder in the way may only be replaced by the very job that wrote it (run again after a crash)."""
    if not target.exists():
        return
    try:
        made_by = json.loads((target / release_files.MANIFEST).read_text(encoding="utf-8")).get("job_id")
    except (OSError, ValueError, AttributeError):
        made_by = None
    if not job_id or made_by != job_id:
        raise UserError("release.folder_taken", path=target)


def _copy_run_files(home: Home, version: t.ModelVersion, weights: Path, scratch: Path) -> list[str]:
    """Weights and files of the run; returns the names of the expected files that the run did not write."""
    from core.models import weight_files

    for path in weight_files(weights):
        place = scratch / release_files.ADAPTER / path.relative_to(weights)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    run_dir = home.run_dir(version.job_id) if version.job_id else None
    absent = []
    for name in ("config.json", *RUN_FILES):
        source = next((f / name for f in (weights, run_dir) if f is not None and (f / name).is_file()), None)
        if source is not None:
            shutil.copyfile(source, scratch / name)
        elif name in EXPECTED:
            absent.append(name)
    return absent


def _about(
    name: str,
    chain: Sequence[t.ModelVersion],
    base: t.ModelVersion,
    base_folder: Path,
    job_id: int,
    *,
    is_self_contained: bool,
    absent: list[str],
) -> dict[str, Any]:
    """The manifest but for its files: identities of everything the weights depend on."""
    version = chain[0]
    sft = next((v for v in chain[1:] if v.kind == VersionKind.SFT), None)
    is_local = base_folder.is_dir()
    return {
        "name": name,
        "created_at": utc_now().isoformat(timespec="seconds"),
        "job_id": job_id or None,
        "version": {
            **{"name": version.name, "kind": version.kind, "content_hash": version.content_hash, "is_toy": version.is_toy},
            "reward_config": version.manifest.get("reward_config"),
            "dataset": version.manifest.get("dataset"),
            "kl": version.manifest.get("kl"),
        },
        "base": {
            **{"name": base.name, "content_hash": base.content_hash, "is_toy": base.is_toy},
            "location": base.path if not is_local else "",
            "tokenizer_sha256": release_files.tokenizer_hash(base_folder) if is_local else "",
            "chat_template_sha256": release_files.template_hash(base_folder) if is_local else "",
        },
        "sft": {"name": sft.name, "content_hash": sft.content_hash} if sft else None,
        "is_self_contained": is_self_contained,
        "absent": absent,
    }


def _write_texts(session: Session, home: Home, chain: Sequence[t.ModelVersion], about: dict[str, Any], scratch: Path) -> None:
    version = chain[0]
    evaluation = newest_covering(session, version)
    report = report_of(evaluation) if evaluation else None
    if evaluation is not None:
        (scratch / "evaluation_report.json").write_text(json.dumps(evaluation.report, ensure_ascii=False, indent=1), encoding="utf-8")
        stored = home.resolve(evaluation.report_path) if evaluation.report_path else None
        if stored is not None and stored.is_file():
            shutil.copyfile(stored, scratch / "evaluation_report.md")
        else:
            (scratch / "evaluation_report.md").write_text(release_texts.evaluation_markdown(evaluation.name, report), encoding="utf-8")
    (scratch / "reward_rules.md").write_text(release_texts.reward_rules(version), encoding="utf-8")
    (scratch / "rl_pipeline.md").write_text(release_texts.pipeline(session, chain), encoding="utf-8")
    card = release_texts.model_card(about, chain, evaluation, report)
    (scratch / "model_card.md").write_text(card, encoding="utf-8")
    with (scratch / "teacher_judgements.jsonl").open("w", encoding="utf-8") as out:
        for row in release_texts.judgements(session, version):
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def _find_base(home: Home, manifest: dict[str, Any], named: str) -> t.ModelVersion | None:
    """The base version here that is the package's: same weights, tokenizer and chat template, all intact on disk."""
    wanted = manifest["base"]
    with read_session() as session:
        whole = t.ModelVersion.kind.in_((VersionKind.BASE, VersionKind.SFT))  # an SFT of all weights is a model of its own
        rows = list(session.scalars(select(t.ModelVersion).where(whole).order_by(t.ModelVersion.id.desc())))
        if named:
            rows = [get_version(session, named)]
    for row in rows:
        folder = Path(base_location(home, row.path))
        if not wanted["content_hash"]:  # a hub model that was never a folder of ours is known by its name only
            is_same = row.path == wanted["location"]
        else:
            is_same = row.content_hash == wanted["content_hash"] and check_weights(home, row) is Weights.INTACT
            is_same = is_same and release_files.tokenizer_hash(folder) == wanted["tokenizer_sha256"]
            is_same = is_same and release_files.template_hash(folder) == wanted["chat_template_sha256"]
        if is_same:
            return row
    if named:
        raise UserError("release.wrong_base", name=named, wanted=wanted["name"], hash=wanted["content_hash"][:12])
    return None


def _install_base(home: Home, folder: Path, manifest: dict[str, Any], by: int | None) -> t.ModelVersion:
    wanted = manifest["base"]
    if not manifest["is_self_contained"]:
        raise NotFound("release.base_missing", wanted=wanted["name"], hash=wanted["content_hash"][:12] or "-")
    with read_session() as session:
        is_taken = session.scalar(select(t.ModelVersion.id).where(t.ModelVersion.name == wanted["name"])) is not None
    plain = str(wanted["name"]).replace("/", "--")
    name = f"{plain}-{wanted['content_hash'][:8]}" if is_taken else plain
    target = home.models / "base" / name
    if not target.exists():
        scratch = target.parent / f".{name}.{os.getpid()}"
        shutil.rmtree(scratch, ignore_errors=True)
        release_files.copy_tree(folder / release_files.BASE, scratch)
        scratch.replace(target)
    with write_session() as session:
        row = register_version(
            session,
            name=name,
            kind=VersionKind.BASE,
            path=home.relative(target),
            is_toy=bool(wanted["is_toy"]),
            content_hash=wanted["content_hash"],
            manifest={"from_release": manifest["name"]},
            created_by=by,
        )
    if check_weights(home, row, is_thorough=True) is not Weights.INTACT:
        raise UserError("release.wrong_base", name=name, wanted=wanted["name"], hash=wanted["content_hash"][:12])
    return row


def _register(
    home: Home,
    target: Path,
    name: str,
    manifest: dict[str, Any],
    digest: str,
    *,
    origin: str,
    job_id: int,
    by: int | None,
    parent: t.ModelVersion | None,
    base: t.ModelVersion | None = None,
    is_servable: bool,
) -> None:
    """The package's row, the version it can be served as, and the record, in one transaction. Doing it again changes nothing."""
    with write_session() as session:
        version = parent
        if is_servable:
            above = parent or _same_weights(session, (manifest["sft"] or {}).get("content_hash", "")) or base
            version = register_version(
                session,
                name=name,
                kind=manifest["version"]["kind"],
                path=home.relative(target / release_files.ADAPTER),
                base_version_id=base.id if base else parent.base_version_id if parent else None,
                parent_version_id=above.id if above else None,
                is_toy=bool(manifest["version"]["is_toy"]),
                content_hash=manifest["version"]["content_hash"],
                manifest={"release": name, "manifest_sha256": digest, **manifest["version"]},
                job_id=job_id,
                created_by=by,
            )
        if version is None:
            raise ValueError("a package outside the data folder has the version it was made from")
        row = session.scalar(select(t.Release).where(t.Release.name == name))
        if row is not None and row.manifest_hash == digest:
            return
        path = home.relative(target) if target.is_relative_to(home.root.resolve()) else str(target)
        if row is None:
            row = t.Release(
                name=name, version_id=version.id, path=path, manifest_hash=digest, origin=origin, job_id=job_id or None, created_by=by
            )
            session.add(row)
        else:  # the same job wrote it again
            row.path, row.manifest_hash = path, digest
        session.flush()
        detail = {"name": name, "version": version.name, "manifest_sha256": digest, "origin": origin}
        audit.record(session, f"release_{origin}", "release", row.id, actor_id=by, detail=detail)


def _same_weights(session: Session, content_hash: str) -> t.ModelVersion | None:
    if not content_hash:
        return None
    return session.scalar(select(t.ModelVersion).where(t.ModelVersion.content_hash == content_hash).order_by(t.ModelVersion.id).limit(1))
