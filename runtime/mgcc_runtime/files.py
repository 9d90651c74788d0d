"""Writing files and folders so that a reader never sees half of one, and their names."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from pathlib import Path

from mgcc_runtime.errors import InputError, OutputError

_LONGEST_NAME_BYTES = 255  # that file systems take
_BLOCK_BYTES = 2**20


def native_path(path: Path) -> str:
    """The path for libraries that take names in UTF-8, whatever the locale says: its bytes are those of the file."""
    try:
        return os.fsencode(path).decode()
    except UnicodeDecodeError:
        return str(path)  # no name that such a library could be told


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file and rename it; makes missing folders. OutputError on failure.

    A symbolic link stays: what it leads to is replaced. A file that is replaced hands its permissions on.
    """
    try:
        target, mode = _replaceable(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary, handle = _temporary_beside(target)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            if mode is not None:
                temporary.chmod(mode)
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink()
            raise
    except (OSError, ValueError) as error:  # ValueError: a name that the system cannot say
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(f"{path} cannot be written ({reason}); give a path in a writable folder") from None


def check_output(path: Path, suffix: str) -> None:
    """Refuse early what could not be written later: InputError for another suffix, else as `check_writable`."""
    if path.suffix.lower() != suffix:
        raise InputError(f"the output {path} does not end in {suffix}; give such a name")
    check_writable(path)


def check_writable(path: Path) -> None:
    """OutputError if `write_atomically` could not write there: all that it does is done, but for the last rename."""
    if os.path.isdir(path):  # noqa: PTH112 (Path's own raises for a name that is too long)
        raise OutputError(f"the output {path} is a folder, expected a file; give a file's path")
    try:
        target, _ = _replaceable(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(f"the output {path} cannot be written ({reason}); give another path") from None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"folder {target.parent} cannot be made ({error.strerror}); give another path") from None
    try:
        temporary, handle = _temporary_beside(target)
        os.close(handle)
        temporary.unlink()
    except OSError as error:
        raise OutputError(
            f"folder {target.parent} cannot be written to ({error.strerror}); give a path in a writable folder"
        ) from None


def _replaceable(path: Path) -> tuple[Path, int | None]:
    """Where `path` leads, and the permissions of the file that stands there, if one does.

    OSError if it leads nowhere, its name is too long, or something else than a file is there: a device, a pipe.
    """
    target = Path(os.path.realpath(path))
    try:
        there = target.lstat()
    except FileNotFoundError:
        return target, None
    except NotADirectoryError:  # said better where the folder is made
        return target, None
    if stat.S_ISLNK(there.st_mode):  # a link that realpath could not follow
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not stat.S_ISREG(there.st_mode):
        raise OSError(errno.EEXIST, "something that is no file is there")
    return target, stat.S_IMODE(there.st_mode) & 0o777


def _temporary_beside(path: Path) -> tuple[Path, int]:
    """A new file in the folder of `path`, opened, with the permissions that a new file gets.

    Its name has nothing of the other's, which may be as long as the system takes. The permissions are the system's own
    doing: to ask for the umask is to set it, for all threads.
    """
    temporary = path.with_name(f".mgcc-{os.urandom(8).hex()}.partial")
    return temporary, os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def hidden_beside(path: Path, kind: str) -> Path:
    """The hidden companion of `path` of this kind, such as its lock: always the same one, at any length of its name."""
    name = f".{path.name}.{kind}"
    if len(os.fsencode(name)) > _LONGEST_NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}.{kind}"
    return path.with_name(name)


def copy_file(source: Path, target: Path) -> None:
    """Put a file into another folder, which is made where it is missing.

    Never a hard link: a bundle, the cache that it was built from and a second bundle would be damaged together. Where
    the file system can share blocks until one of both is written to, it does (Btrfs, XFS), and that costs nothing.
    Else 100 MB take about 0.1 s.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # or what it is a link to would be written over
    with source.open("rb") as given, target.open("wb") as made:
        if not _copied_by_system(given.fileno(), made.fileno()):
            shutil.copyfileobj(given, made, _BLOCK_BYTES)


def _copied_by_system(given: int, made: int) -> bool:
    """Have the kernel copy all of one open file into another; False where it cannot, and nothing was copied."""
    if not hasattr(os, "copy_file_range"):
        return False
    try:
        while os.copy_file_range(given, made, 2**30):
            pass
    except OSError:  # between file systems, or one that knows no such thing
        os.lseek(given, 0, os.SEEK_SET)
        os.lseek(made, 0, os.SEEK_SET)
        os.ftruncate(made, 0)
        return False
    return os.fstat(given).st_size == os.fstat(made).st_size  # some file systems copy nothing and say no word


def old_of(out: Path) -> Path:
    """Where the folder that stood in the place of `out` is while it is replaced."""
    return hidden_beside(out, "old")


def recover(out: Path) -> None:
    """Bring back what a killed run had moved away; between the two renames of `replace_folder` `out` is absent.

    OutputError if there can be no folder called so.
    """
    try:
        out.lstat()  # a companion's name is shortened, so that the folder's own is too long would be found last of all
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(f"folder {out} cannot be made ({error.strerror}); give a writable place with --out") from None
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
