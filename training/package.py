"""Write a release package of a version: every file that a reader or another machine needs, with its hash (core.release).

Nothing is trained and no model is loaded; it is a job because a base of many gigabytes takes a while to copy and to hash.

    python -m training.package --run-dir DIR      (job kind package)
"""

from __future__ import annotations

from pathlib import Path

from core import release, release_files
from core.jobs.configs_release import PackageConfig
from training.run import Run, main


def package(run: Run) -> None:
    """Write a release package of a model version."""
    config = run.config(PackageConfig)
    run.progress("package", 0, 2)
    out = Path(config.out).expanduser() if config.out else None
    folder = release.build(run.home, config.model, config.name, out=out, with_base=config.with_base, job_id=run.job_id)
    run.progress("package", 1, 2)
    manifest = release_files.verify(folder)  # read back what was written, before anybody relies on it
    run.progress("package", 2, 2)
    size = sum(int(one["size"]) for one in manifest["files"].values())
    print(f"{folder}: {len(manifest['files'])} files, {size:,} bytes, verified", flush=True)
    run.result(
        release=config.name,
        path=str(folder),
        manifest_sha256=release_files.manifest_hash(folder),
        num_files=len(manifest["files"]),
        num_bytes=size,
        absent=manifest["absent"],
    )


if __name__ == "__main__":
    main(package)
