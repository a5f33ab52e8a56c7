"""/api/jobs: look at, start, stop and retry jobs. Engineers and administrators only (the guard checks it too)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import MAX_ID, RowId, allowed
from core.accounts import Person
from core.home import current_home
from core.jobs import files, views
from core.records import CancelMode, JobStatus

router = APIRouter(prefix="/jobs", tags=["jobs"])
Engineer = Annotated[Person, Depends(allowed("engineer"))]


class JobOut(BaseModel):
    """A job. `error` holds the code of its sentence and that sentence's values."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    kind: str
    title: str
    status: str
    config: dict[str, Any]
    progress: dict[str, Any]
    result: dict[str, Any]
    error: dict[str, Any]
    attempt: int
    after_id: int | None
    exit_code: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobIn(BaseModel):
    """What to start. `config` is checked against its kind; left-out settings have their defaults."""

    kind: str
    config: dict[str, Any] = Field(default_factory=dict)
    after_id: Annotated[int, Field(ge=0, le=MAX_ID)] | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    dedup_key: str | None = None


class CancelIn(BaseModel):
    """`stop_now`, or `stop_and_save` to let it write a checkpoint first."""

    mode: CancelMode = CancelMode.STOP_NOW


@router.get("")
def list_jobs(
    _caller: Engineer,
    status: JobStatus | None = None,
    kind: str | None = None,
    before_id: Annotated[int | None, Query(ge=0, le=MAX_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[JobOut]:
    """Newest first; the next page is asked for with `before_id` = the last id of this one."""
    rows = views.newest(status=status.value if status else None, kind=kind, before_id=before_id, limit=limit)
    return [JobOut.model_validate(row) for row in rows]


@router.get("/{job_id}")
def get_job(job_id: RowId, _caller: Engineer) -> JobOut:
    """One job."""
    return JobOut.model_validate(views.get(job_id))


@router.get("/{job_id}/log", response_class=PlainTextResponse)
def get_log(job_id: RowId, _caller: Engineer, lines: Annotated[int, Query(ge=1, le=5000)] = 200) -> str:
    """The end of its log."""
    return files.tail(current_home().run_dir(views.get(job_id).id) / "log.txt", lines).text


@router.post("", status_code=201)
def start_job(wanted: JobIn, caller: Engineer) -> JobOut:
    """Queue a job."""
    job_id = views.start(
        wanted.kind, wanted.config, caller.id, after_id=wanted.after_id, priority=wanted.priority, dedup_key=wanted.dedup_key
    )
    return JobOut.model_validate(views.get(job_id))


@router.post("/{job_id}/cancel")
def cancel_job(job_id: RowId, how: CancelIn, caller: Engineer) -> JobOut:
    """Cancel a queued job; ask a running one to stop."""
    return JobOut.model_validate(views.stop(job_id, how.mode, caller.id))


@router.post("/{job_id}/retry")
def retry_job(job_id: RowId, caller: Engineer) -> JobOut:
    """Run an ended job again, from its last checkpoint."""
    return JobOut.model_validate(views.run_again(job_id, caller.id))
