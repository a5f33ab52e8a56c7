"""The launcher that the settings ask for."""

from __future__ import annotations

import json
import shlex

from core.errors import UserError
from core.home import Home
from core.jobs.launch import slurm
from core.jobs.launch.base import Launcher
from core.jobs.launch.local import LocalLauncher
from core.jobs.launch.ray import RayLauncher
from core.jobs.launch.sky import SkyLauncher
from core.jobs.launch.slurm import SlurmLauncher, SlurmOptions


def launcher_of(home: Home, *, grace_s: float) -> Launcher:
    """Raises UserError("jobs.no_slurm" / "jobs.no_ray" / "jobs.no_sky") where what the launcher needs is missing and
    UserError("bad_setting") for unreadable options."""
    settings = home.settings
    if settings.launcher == "slurm":
        if not slurm.is_installed():
            raise UserError("jobs.no_slurm")
        options = SlurmOptions(settings.slurm_partition, settings.slurm_gres, _options("slurm_options", settings.slurm_options))
        return SlurmLauncher(home.runs, options, grace_s=grace_s)
    if settings.launcher == "ray":
        if not settings.ray_address:
            raise UserError("jobs.no_ray")
        return RayLauncher(home.runs, settings.ray_address, settings.ray_token, num_cpus=settings.ray_cpus, grace_s=grace_s)
    if settings.launcher == "sky":
        if not all(slurm.are_here(settings.sky_command)):
            raise UserError("jobs.no_sky", command=settings.sky_command)
        return SkyLauncher(
            home.runs,
            _fields("sky_task", settings.sky_task),
            _options("sky_options", settings.sky_options),
            command=settings.sky_command,
            grace_s=grace_s,
        )
    return LocalLauncher(home.runs, home.locks, grace_s=grace_s)


def slots_of(home: Home) -> dict[str, list[str]]:
    """Queue -> slots. This machine has one accelerator to give away; a cluster sorts that out by itself.

    A slot is taken once in the whole queue, so where several machines may share it (PostgreSQL) each has slots under its own name.
    """
    settings = home.settings
    num_gpu = {"local": 1, "slurm": settings.slurm_jobs, "ray": settings.ray_jobs, "sky": settings.sky_jobs}[settings.launcher]
    here = "" if settings.url.startswith("sqlite") else f"@{home.machine}"
    return {"gpu": [f"gpu:{n}{here}" for n in range(num_gpu)], "cpu": [f"cpu:{n}{here}" for n in range(settings.num_cpu_slots)]}


def _options(name: str, value: str) -> tuple[str, ...]:
    """As on a command line."""
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise UserError("bad_setting", name=name, reason=error) from error


def _fields(name: str, value: str) -> dict[str, object]:
    """A JSON object; "" is an empty one."""
    try:
        read = json.loads(value or "{}")
    except ValueError as error:
        raise UserError("bad_setting", name=name, reason=error) from error
    if not isinstance(read, dict):
        raise UserError("bad_setting", name=name, reason="not a JSON object")
    return read
