"""Making a kit: wheels, bundle, README and hashes, in a hidden folder that takes the output's place at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mgcc_runtime.bundle.folder import Bundle, sha256_of
from mgcc_runtime.engines import extra_of
from mgcc_runtime.errors import BundleError, OutputError
from mgcc_runtime.files import copy_file, recover, replace_folder
from mgcc_runtime.kit.kiosk_files import FOLDER, write_kiosk
from mgcc_runtime.kit.own_wheel import own_wheel
from mgcc_runtime.kit.readme import BUNDLE, SUMS, WHEELS, KitText
from mgcc_runtime.kit.target import Target, Use
from mgcc_runtime.kit.wheels import fetch
from mgcc_runtime.names import MANIFEST, PLAN, EngineName, TargetName

README = "README.md"


@dataclass(frozen=True)
class Kit:
    """A finished kit."""

    folder: Path
    target: Target
    extras: tuple[str, ...]
    wheels: int
    bytes: int  # of all files


def make_kit(
    bundle: Path, target: Target, out: Path, use: Use = Use.RUNTIME,
    *, wheel: Path | None = None, said: Callable[[str], None] = lambda _: None,
) -> Kit:  # fmt: skip
    """Make a kit of the checked bundle in the folder `out`, which may be an older kit; `said` gets what is being done.

    Raises BundleError, OutputError (`out` is something else or cannot be written), InputError, KitError.
    """
    said("checking the bundle")
    opened = Bundle.open(bundle)
    _check_place(out, bundle)
    try:
        place = out.resolve()  # a link to a folder stays one
        place.parent.mkdir(parents=True, exist_ok=True)
        recover(place)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".mgcc-kit-") as work:
            finished = Path(work) / "kit"
            made = _fill(finished, opened, target, use, wheel, said)
            replace_folder(finished, place)
    except OSError as error:
        raise OutputError(f"kit {out} cannot be written ({error.strerror}); give another folder with --out") from None
    return Kit(out, target, made.extras, sum(1 for _ in (out / WHEELS).iterdir()), _bytes(out))


def _fill(
    folder: Path, bundle: Bundle, target: Target, use: Use, wheel: Path | None, said: Callable[[str], None]
) -> KitText:
    wheels = folder / WHEELS
    wheels.mkdir(parents=True)
    said("building the wheel of mgcc-edge")
    own = own_wheel(wheel, wheels)
    said(f"fetching wheels for {target}")
    extras = _extras(bundle, use)
    wanted = (f"mgcc-edge[{','.join(extras)}] @ {own.resolve().as_uri()}", "pip")
    fetched = fetch(wanted, target, wheels, _least_versions(bundle))
    said("copying the bundle")
    for name in (MANIFEST, *bundle.manifest.files):
        copy_file(bundle.root / name, folder / BUNDLE / name)
    text = KitText(
        target, use, bundle.manifest.profile, bundle.manifest.target, extras,
        next(path.name for path in fetched if path.name.startswith("pip-")),
        tensorrt=extra_of(EngineName.TENSORRT) in extras, builds_engines=bundle.has(PLAN),
        gpu=bundle.manifest.target != TargetName.CPU,
    )  # fmt: skip
    if use is Use.KIOSK:
        write_kiosk(folder / FOLDER, text)
    (folder / README).write_text(str(text), encoding="utf-8")
    said("hashing")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = (f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    return text


def _extras(bundle: Bundle, use: Use) -> tuple[str, ...]:
    """Extras of the distribution that install the engines of the bundle, or of what the device makes of it."""
    served = {"serve"} if use is Use.KIOSK else set()
    if bundle.has(PLAN):
        return tuple(sorted({extra_of(EngineName.TENSORRT), *served}))
    engines = {graph.engine for graph in bundle.manifest.graphs().values()}
    try:
        return tuple(sorted({extra_of(engine) for engine in engines} | served))
    except KeyError as error:
        raise BundleError(f"bundle {bundle.root} needs the engine {error}, unknown here; upgrade mgcc-edge") from None


def _least_versions(bundle: Bundle) -> list[str]:
    """What the bundle asks of packages that are installed anyway."""
    return [f"{name}{least}" for name, least in bundle.manifest.requires.items() if name != "runtime"]


def _check_place(out: Path, bundle: Path) -> None:
    if out.resolve().is_relative_to(bundle.resolve()) or bundle.resolve().is_relative_to(out.resolve()):
        raise OutputError(f"kit {out} and bundle {bundle} lie in each other; give a folder beside it with --out")
    try:
        empty = not out.exists() or not any(out.iterdir())
    except OSError as error:
        raise OutputError(f"kit {out} cannot be a folder ({error.strerror}); give a new one with --out") from None
    if not empty and not ((out / SUMS).is_file() and (out / WHEELS).is_dir()):
        raise OutputError(f"{out} exists and is no kit, so it is not replaced; give an empty or new folder with --out")


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
