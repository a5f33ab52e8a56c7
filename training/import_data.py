"""Import job: a file becomes a dataset, all or nothing, with a progress bar. Run by the worker or by `./run.sh import`."""

from __future__ import annotations

from pathlib import Path

from core.importing.importer import import_file
from core.jobs.configs import ImportConfig
from db import tables as t
from db.engine import read_session
from training.run import Run, main


def body(run: Run) -> None:
    """Import an uploaded file as a dataset."""
    config = run.config(ImportConfig)
    folder = run.home.root / "datasets" / _folder_name(config.dataset)
    created_by = None
    if run.job_id:
        with read_session() as session:
            job = session.get(t.Job, run.job_id)
            created_by = job.created_by if job else None
    dataset_id, report = import_file(
        run.home.resolve(config.path) if not Path(config.path).is_absolute() else Path(config.path),
        config,
        folder=folder,
        card_path=run.home.relative(folder) + "/DATA_CARD.md",
        created_by=created_by,
        job_id=run.job_id or None,
        on_progress=run.progress,
    )
    run.progress("done", report.num_imported, report.num_imported)
    run.result(
        dataset=config.dataset,
        dataset_id=dataset_id,
        num_rows=report.num_rows,
        num_imported=report.num_imported,
        num_rejected=report.num_rejected,
        rejected_by_reason=report.rejected_by_reason,
        num_exact_duplicates=report.num_exact_duplicates,
        num_near_duplicates=report.num_near_duplicates,
        splits=report.splits,
        privacy_action=report.privacy_action,
        num_quarantined=report.num_quarantined,
        num_surrogates=report.num_surrogates,
        identifiers=report.identifiers,
    )
    print(
        f"imported {report.num_imported} of {report.num_rows} rows; {report.num_exact_duplicates} repeated an earlier prompt exactly, "
        f"{report.num_near_duplicates} nearly (kept, in the same split); {report.num_rejected} refused; "
        f"{report.num_quarantined} wait in quarantine, {report.num_surrogates} were rewritten with surrogates (Data page, Quarantine)",
        flush=True,
    )


def _folder_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip(".") or "dataset"


if __name__ == "__main__":
    main(body)
