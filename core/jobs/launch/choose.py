"""The launcher that the settings ask for."""

from __future__ import annotations

import shlex

from core.errors import UserError
from core.home import Home
from core.jobs.launch.base import Launcher
from core.jobs.launch.local import LocalLauncher
from core.jobs.launch.slurm import SlurmLauncher, SlurmOptions, is_installed


def launcher_of(home: Home, *, grace_s: float) -> Launcher:
    """Raises UserError("jobs.no_slurm") where Slurm's commands are missing and UserError("bad_setting") for unreadable options."""
    settings = home.settings
    if settings.launcher == "local":
        return LocalLauncher(home.runs, home.locks, grace_s=grace_s)
    if not is_installed():
        raise UserError("jobs.no_slurm")
    try:
        extra = tuple(shlex.split(settings.slurm_options))
    except ValueError as error:
        raise UserError("bad_setting", name="slurm_options", reason=error) from error
    return SlurmLauncher(home.runs, SlurmOptions(settings.slurm_partition, settings.slurm_gres, extra), grace_s=grace_s)


def slots_of(home: Home) -> dict[str, list[str]]:
    """Queue -> slots. This machine has one accelerator to give away; a cluster sorts that out by itself."""
    settings = home.settings
    num_gpu = 1 if settings.launcher == "local" else settings.slurm_jobs
    return {"gpu": [f"gpu:{n}" for n in range(num_gpu)], "cpu": [f"cpu:{n}" for n in range(settings.num_cpu_slots)]}
