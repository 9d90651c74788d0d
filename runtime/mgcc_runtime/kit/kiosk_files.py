"""What turns a device into a kiosk: units of systemd, the browser's policies, a container file, and what installs them.

The files lie in `kiosk/`, with places such as %PYTHON% that a kit fills in.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from mgcc_runtime.kit.readme import BUNDLE, ENGINES, KitText

FOLDER = "kiosk"
_OPTIONAL = {"Containerfile"}  # left out of a kit whose engines are built on the device: a container has no TensorRT
_BUILD = '"$home.new/venv/bin/python" -m mgcc_export.device_build --bundle "$here/{bundle}" --out "$home.new/{engines}"'


def write_kiosk(folder: Path, text: KitText) -> None:
    """Put the files into `folder`, filled in for the kit that `text` tells of."""
    folder.mkdir()
    values = {
        "PLAYED": ENGINES if text.builds_engines else BUNDLE,
        "PYTHON": text.target.python,
        "PIP": text.pip_wheel,
        "EXTRAS": ",".join(text.extras),
        "SYSTEM": " --system-site-packages" if text.tensorrt else "",
        "DEVICE": "gpu" if text.gpu else "cpu",
        "PUT_BUNDLE": _BUILD.format(bundle=BUNDLE, engines=ENGINES)
        if text.builds_engines
        else f'cp -R "$here/{BUNDLE}" "$home.new/{BUNDLE}"',
    }
    for source in sorted((files(__package__) / FOLDER).iterdir(), key=lambda path: path.name):
        if source.name in _OPTIONAL and text.builds_engines:
            continue
        written = source.read_text(encoding="utf-8")
        for name, value in values.items():
            written = written.replace(f"%{name}%", value)
        (folder / source.name).write_text(written, encoding="utf-8")
