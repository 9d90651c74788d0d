"""Writing files and folders so that a reader never sees half of one, and the place for caches."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from mgcc_runtime.errors import InputError, OutputError

WEIGHTS_SUFFIX = ".onnx.data"  # of the file that holds the weights of the graph beside it


def cache_folder() -> Path:
    """Where caches of this program lie: $MGCC_CACHE, or the system's place for them."""
    if own := os.environ.get("MGCC_CACHE"):
        return Path(own)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "mgcc" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mgcc"


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file beside `path` and rename it; makes missing folders. OutputError on failure."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).chmod(0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink()
            raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); give a path in a writable folder") from None


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def check_output(path: Path, suffix: str) -> None:
    """Refuse early what could not be written later: InputError for another suffix, OutputError for the folder."""
    if path.suffix.lower() != suffix:
        raise InputError(f"the output {path} does not end in {suffix}; give such a name")
    if path.is_dir():
        raise OutputError(f"the output {path} is a folder, expected a file; give a file's path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"folder {path.parent} cannot be made ({error.strerror}); give another path") from None
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"folder {path.parent} cannot be written to; give a path in a writable folder")


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file into another folder without doubling its bytes where the file system can.

    Weights beside their graph are copied all the same: onnx and onnx_ir take a second hard link of them for an attack
    and refuse the graph, here in the cache as well as in the bundle.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.name.endswith(WEIGHTS_SUFFIX):
        shutil.copyfile(source, target)
        return
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def old_of(out: Path) -> Path:
    """Where the folder that stood in the place of `out` is while it is replaced."""
    return out.parent / f".{out.name}.old"


def recover(out: Path) -> None:
    """Bring back what a killed run had moved away; between the two renames of `replace_folder` `out` is absent."""
    old = old_of(out)
    if old.exists() and not out.exists():
        old.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def replace_folder(finished: Path, out: Path) -> None:
    """Put a finished folder in the place of `out`."""
    if out.exists():
        out.rename(old_of(out))
    finished.rename(out)
    shutil.rmtree(old_of(out), ignore_errors=True)
