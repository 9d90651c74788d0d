"""README.md of a kit: five commands for a device without a network, as they are to be typed in the kit's folder."""

from __future__ import annotations

from dataclasses import dataclass

from mgcc_runtime.kit.target import GLIBC, Target, Use

BUNDLE, WHEELS, SUMS, ENVIRONMENT, ENGINES = "bundle", "wheels", "SHA256SUMS", "venv", "engines"


@dataclass(frozen=True)
class KitText:
    """What the README of one kit depends on."""

    target: Target
    use: Use
    profile: str
    bundle_target: str  # of the manifest
    extras: tuple[str, ...]
    pip_wheel: str  # file name
    tensorrt: bool  # comes with JetPack or CUDA, not in the kit
    gpu: bool  # its engines run on one
    builds_engines: bool  # the bundle has graphs that become engines on the device

    @property
    def commands(self) -> tuple[str, ...]:
        """The five, in their order."""
        python = f"{ENVIRONMENT}/bin/python"
        system = " --system-site-packages" if self.tensorrt else ""
        first = f"sha256sum --check --quiet {SUMS}"
        venv = f"python{self.target.python} -m venv --without-pip{system} {ENVIRONMENT}"
        install = (
            f"{python} {WHEELS}/{self.pip_wheel}/pip install --no-index --find-links {WHEELS} "
            f"'mgcc-edge[{','.join(self.extras)}]'"
        )
        if self.builds_engines:
            build = f"{python} -m mgcc_export.device_build --bundle {BUNDLE} --out {ENGINES}"
            return (first, venv, install, build, f"{ENVIRONMENT}/bin/mgcc verify --bundle {ENGINES}")
        verify = f"{ENVIRONMENT}/bin/mgcc verify --bundle {BUNDLE}"
        draw = f'{ENVIRONMENT}/bin/mgcc generate --bundle {BUNDLE} --text "A fox is here." --out first.png'
        return (first, venv, install, verify, draw)

    def __str__(self) -> str:
        commands = "\n".join(self.commands)
        needs = (
            f"For {self.target}, Linux with glibc 2.{GLIBC} or later. Nothing is fetched: the network may be off.",
            "Copy this folder to the device and type in it:",
        )
        return "\n".join(
            [
                f"# MGCC Edge, profile {self.profile} for {self.bundle_target}",
                "",
                *needs,
                "",
                f"```bash\n{commands}\n```",
                "",
                *(f"- {line}" for line in self._explained()),
                "",
            ]
        )

    def _explained(self) -> list[str]:
        played = ENGINES if self.builds_engines else BUNDLE
        said = [
            "The first compares every file with its SHA-256.",
            f"The second makes an environment in `{ENVIRONMENT}`, for which Python needs no other package.",
            f"The third installs from `{WHEELS}` alone.",
        ]
        if self.builds_engines:
            said.append("The fourth builds engines for this device's GPU, which takes minutes and is done once.")
        said.append("`mgcc verify` compares the device with the reference.")
        said.append(f"A dialogue: `{ENVIRONMENT}/bin/mgcc chat --bundle {played} --out out`.")
        if self.use is Use.KIOSK:
            said.append(
                "A kiosk that starts with the device: `sudo sh kiosk/install.sh`, which needs `chromium` and `cage`."
            )
        if self.tensorrt:
            said += [
                "TensorRT is not in this kit: JetPack has it (`python3-libnvinfer`), NVIDIA's packages for other GPUs.",
                "For its sake the environment sees the system's packages.",
            ]
        return said
