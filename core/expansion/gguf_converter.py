"""llama.cpp's own converter to GGUF, taken out of the llama-cpp-python source package (MIT) that is named here by version and hash.

Nothing of it is copied into this repository and nothing is compiled: four entries of the archive are unpacked beside the other
packages of this environment, its licence among them. The archive comes from the package index that pip is set up with, or from
a file that somebody carried here (setting gguf_converter). Called by the export job and `./run.sh expansion converter`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from core.errors import Unavailable, UserError

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
INSIDE = f"llama_cpp_python-{VERSION}/vendor/llama.cpp/"
#: what is taken out of the archive, below INSIDE
WANTED = ("convert_hf_to_gguf.py", "conversion/", "gguf-py/gguf/", "LICENSE")
DOWNLOAD_S = 900


@dataclass(frozen=True, slots=True)
class Converter:
    """A folder with convert_hf_to_gguf.py and its package `conversion`. `origin` says what it is, for manifests."""

    folder: Path
    origin: str


def own_folder() -> Path:
    """Where this environment keeps the unpacked converter; one for all data folders."""
    return Path(sys.prefix) / "share" / "consilium" / f"gguf-converter-{VERSION}"


def find(setting: str) -> Converter | None:
    """The converter at hand: what the setting names (a folder of llama.cpp, or the archive itself), else the unpacked one.

    None where there is none. Raises UserError("expansion_export.converter_setting" / "expansion_export.converter_hash").
    """
    if setting:
        named = Path(setting).expanduser()
        if named.is_file():
            return unpack(named)
        if _is_converter(named):
            return Converter(named, f"folder {named.name} (not verified)")
        raise UserError("expansion_export.converter_setting", path=setting)
    return Converter(own_folder(), _origin()) if _is_converter(own_folder()) else None


def fetch() -> Converter:
    """Download the archive through pip, verify and unpack it. Nothing of it is built or run but pip's reading of its metadata.

    Raises Unavailable("expansion_export.converter_download") with pip's own last line, UserError("expansion_export.converter_hash").
    """
    with tempfile.TemporaryDirectory(prefix="consilium-converter-") as scratch:
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--no-binary", PACKAGE]
        try:
            done = subprocess.run(
                [*command, "--require-hashes", "-r", str(wanted), "-d", scratch],
                capture_output=True, text=True, timeout=DOWNLOAD_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Unavailable("expansion_export.converter_download", reason=f"{DOWNLOAD_S} s", version=VERSION) from error
        archives = list(Path(scratch).glob("*.tar.gz"))
        if done.returncode or not archives:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines() or ["pip"]
            raise Unavailable("expansion_export.converter_download", reason=said[-1][:300], version=VERSION)
        return unpack(archives[0])


def unpack(archive: Path) -> Converter:
    """Verify the archive's hash and take the converter out of it (again: nothing to do).

    Raises UserError("expansion_export.converter_hash") for another file than the pinned one.
    """
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise UserError("expansion_export.converter_hash", file=archive.name, found=found[:12], version=VERSION, wanted=SHA256[:12])
    target = own_folder() if os.access(sys.prefix, os.W_OK) else archive.parent / f"gguf-converter-{VERSION}"
    if _is_converter(target):
        return Converter(target, _origin())
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix(INSIDE)
            if member.isfile() and name != member.name and name.startswith(WANTED):
                member.name = name
                tar.extract(member, scratch, filter="data")
    if target.exists():
        shutil.rmtree(target)
    scratch.replace(target)
    return Converter(target, _origin())


def _origin() -> str:
    return f"{PACKAGE} {VERSION} sdist, sha256 {SHA256[:12]}"


def _is_converter(folder: Path) -> bool:
    return all((folder / name).exists() for name in WANTED[:3])
