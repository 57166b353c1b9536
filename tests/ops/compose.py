"""What replica-set-compose.yml and ops/Dockerfile say, for the tests that run it and hold it to the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

__all__ = ["ROOT", "Compose", "stage_of"]

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "ops/Dockerfile"


class Compose:
    """The compose file, as YAML has it; variables such as `${NAME:-default}` have their defaults."""

    def __init__(self, path: Path = ROOT / "replica-set-compose.yml") -> None:
        self.text = path.read_text(encoding="utf-8")
        self.document: dict[str, Any] = yaml.safe_load(self.text)
        self.services: dict[str, dict[str, Any]] = self.document["services"]

    def variables(self) -> set[str]:
        """The variables that the file is filled in from."""
        return set(re.findall(r"(?<!\$)\$\{(\w+)", self.text))

    def environment(self, service: str) -> dict[str, str]:
        """A service's environment."""
        found = self.services[service].get("environment", {})
        return {name: _filled(value) for name, value in found.items()}

    def command(self, service: str) -> list[str]:
        """What a service runs: its entry point and command, or those of its image where that is ours."""
        found = self.services[service]
        own = [*found.get("entrypoint", []), *found.get("command", [])]
        return [_filled(word) for word in own] or stage_of(found["build"]["target"])["CMD"]

    def mounted(self, service: str) -> dict[str, Path]:
        """The files and directories of this repository that a service sees, by their path in it."""
        volumes = [volume.split(":") for volume in self.services[service].get("volumes", [])]
        return {place: ROOT / source for source, place, *_ in volumes if source.startswith("./")}

    def secrets(self) -> dict[str, str]:
        """The file of each secret, below the directory that ops/secrets.sh fills."""
        found = self.document["secrets"]
        return {name: secret["file"].removeprefix("./secrets/") for name, secret in found.items()}


def stage_of(target: str) -> dict[str, Any]:
    """The instructions of one of the Dockerfile's stages over those of the stage it comes from.

    The last of each kind, a list where it is written as one; `COPY`: all of them, their sources only.
    """
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text(encoding="utf-8"))
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    bodies = {stage.split()[2]: stage for stage in stages}
    base = bodies[target].split()[0]
    found = stage_of(base) if base in bodies else {"COPY": []}
    for line in bodies[target].splitlines()[1:]:
        kind, _, rest = line.strip().partition(" ")
        if kind == "COPY":
            own = [] if rest.startswith("--from") else rest.split()[:-1]
            found["COPY"] = [*found["COPY"], *own]
        elif kind == "HEALTHCHECK":
            found[kind] = json.loads(rest.partition("CMD")[2])
        elif kind == "ENV":
            pairs = dict(word.partition("=")[::2] for word in rest.split())
            found[kind] = {**found.get(kind, {}), **pairs}
        elif kind.isupper():
            found[kind] = json.loads(rest) if rest.startswith("[") else rest
    return found


def _filled(value: Any) -> str:
    text = re.sub(r"(?<!\$)\$\{\w+:-([^}]*)\}", r"\1", str(value))
    return text.replace("$$", "$")
