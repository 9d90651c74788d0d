"""Write a bundle folder in one step: beside its place under another name, then renamed.

A killed build leaves a hidden `.NAME.partial` folder without a manifest, which nothing loads and the next
build removes. A lock beside the folder keeps a second build out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from mgcc_calibration.cache import file_entry
from mgcc_calibration.graphs.share_weights import share_weights
from mgcc_runtime.bundle.folder import Bundle, FileEntry, Manifest, write_manifest
from mgcc_runtime.bundle.output_folder import BusyError, OutputFolderError, check_replaceable
from mgcc_runtime.contract import stages
from mgcc_runtime.engines.tensorrt.record import read_record
from mgcc_runtime.files import copy_file, hidden_beside, recover, replace_folder
from mgcc_runtime.names import ENGINE_SUFFIX, graph_file, weights_file


class BundleWriter:
    """Context manager that owns the output folder while a build runs. BusyError if another build has it."""

    def __init__(self, out: Path) -> None:
        self.out = out.resolve()
        self.staging = hidden_beside(self.out, "partial")
        self._lock = FileLock(hidden_beside(self.out, "lock"))
        self.files: dict[str, FileEntry] = {}

    def __enter__(self) -> BundleWriter:
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise BusyError(
                f"another build writes into {self.out} now; wait for it to end, or give another folder with --out"
            ) from None
        except OSError as error:
            raise OutputFolderError(
                f"folder {self.out} cannot be made ({error.strerror}); give a writable place with --out"
            ) from None
        try:
            self._recover()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        self._lock.release()

    def _recover(self) -> None:
        """Clear away what killed builds left."""
        recover(self.out)
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir()

    def check_replaceable(self, stage_names: Iterable[str]) -> None:
        """OutputFolderError if `out` holds files that are no bundle, or a bundle with stages this build leaves out."""
        check_replaceable(self.out, stage_names)

    def add_bytes(self, name: str, data: bytes) -> None:
        """Write one file of the bundle; `name` is its path inside."""
        path = self.staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.files[name] = file_entry(path)

    def add_array(self, name: str, array: NDArray[np.float32]) -> None:
        """Write one .npy file of the bundle, which a device can map into memory."""
        path = self.staging / name
        np.save(path, array, allow_pickle=False)
        self.files[name] = file_entry(path)

    def add_file(self, name: str, source: Path, entry: FileEntry | None = None) -> None:
        """Copy one file in; `entry`: its size and hash, where they are known."""
        copy_file(source, self.staging / name)
        self.files[name] = entry or file_entry(source)

    def add_files(
        self, folder: Path, files: Mapping[str, FileEntry], instead: Mapping[str, bytes] | None = None
    ) -> None:
        """Copy the `files` of a folder in; `instead`: those that are others in this bundle, by name."""
        others = instead or {}
        for name, entry in files.items():
            if name in others:
                self.add_bytes(name, others[name])
            else:
                self.add_file(name, folder / name, entry)

    def share_weights(self, owner: str, reader: str) -> int:
        """Have one stage's graph take what weights it can from another's file; the bytes saved, 0 without such graphs.

        After this a changed byte there is found by the one hash that the manifest has of the file, for both stages.
        """
        graphs = [graph_file(name) for name in (owner, reader)]
        if not {*graphs} <= {*self.files}:
            return 0
        saved = share_weights(*(self.staging / graph for graph in graphs))
        if saved:
            for name in [*graphs, *(weights_file(graph) for graph in graphs)]:
                self.files.pop(name, None)
                if (path := self.staging / name).is_file():
                    self.files[name] = file_entry(path)
        return saved

    def stage_bytes(self, stage: str) -> int:
        """Size of a stage's files so far, those of its golden data and those it shares of another stage left out."""
        return sum(entry.bytes for name, entry in self.files.items() if name.startswith(f"{stage}."))

    def opened(self, manifest: Manifest) -> Bundle:
        """The bundle as far as it is written, to be measured before it is put in its place."""
        write_manifest(self.staging, replace(manifest, files=dict(sorted(self.files.items()))))
        return Bundle.open(self.staging)

    def commit(self, manifest: Manifest) -> Path:
        """Write the manifest, open the bundle as a device would, and put it in its place. Returns the folder.

        The manifest's files are those that were added. To what the bundle was built with come the versions of the
        libraries that its engines' records name.
        """
        records = [read_record(self.staging / name) for name in self.files if name.endswith(ENGINE_SUFFIX)]
        builders = {record.library: record.version for record in records}
        manifest = replace(manifest, built_with={**manifest.built_with, **builders})
        if {s.name for s in stages(manifest.dimensions)} == set(manifest.stages):
            self.opened(manifest)
        else:
            write_manifest(self.staging, replace(manifest, files=self.files))
        replace_folder(self.staging, self.out)
        return self.out
