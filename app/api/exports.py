"""/api/exports: make an export, list them, fetch the file and its manifest. Engineers, product staff and administrators."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict

from app.api.access import Moment, RowId, allowed
from core.accounts import Person
from core.exports import service
from core.exports.rows import Filter

router = APIRouter(prefix="/exports", tags=["exports"])
Exporter = Annotated[Person, Depends(allowed("engineer", "product"))]


class ExportIn(BaseModel):
    """What to export. `format` left out is the usual one of the kind; `since` is a UTC time."""

    kind: str
    format: str = ""
    dataset: str = ""
    language: str = ""
    since: Moment | None = None


class ExportOut(BaseModel):
    """A finished export; `manifest` says what is in it and what was left out."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    kind: str
    format: str
    num_rows: int
    sha256: str
    file_name: str
    created_at: datetime
    manifest: dict[str, Any]


@router.get("/kinds")
def list_kinds(_person: Exporter) -> dict[str, tuple[str, ...]]:
    """Every kind with its formats, the usual one first."""
    return service.FORMATS


@router.post("", status_code=201)
def make_export(asked: ExportIn, person: Exporter) -> ExportOut:
    """Write an export and return its manifest. Held-out samples never enter a training export; they are counted in the manifest."""
    chosen = Filter(asked.dataset, asked.language, asked.since)
    return ExportOut.model_validate(service.make(person.id, asked.kind, asked.format, chosen))


@router.get("")
def list_exports(_person: Exporter) -> list[ExportOut]:
    """The newest exports."""
    return [ExportOut.model_validate(found) for found in service.newest()]


@router.get("/{export_id}/file", response_class=FileResponse)
def get_file(export_id: RowId, _person: Exporter) -> FileResponse:
    """The file, after its hash was compared with the record."""
    found, path = service.file_of(export_id)
    headers = {"X-Content-SHA256": found.sha256, "X-AI-Generated": "true"}
    return FileResponse(path, media_type=found.media_type, filename=found.file_name, headers=headers)


@router.get("/{export_id}/manifest")
def get_manifest(export_id: RowId, _person: Exporter) -> dict[str, Any]:
    """The manifest alone."""
    return service.file_of(export_id)[0].manifest
