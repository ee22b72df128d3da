"""What `make up` looks at before it starts anything, so that a container need not fail to say it."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
#: The services' user in a container.
USER = 10001


class UsageError(Exception):
    """What was asked for does not exist or cannot work; the text says what does."""


class Settings:
    """Settings as containers will see them, without Compose's help."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ

    def given(self, name: str) -> str | None:
        """What Compose puts into its files: the environment, then `.env` beside them; None if empty."""
        return self.environ.get(name) or _read(FOLDER / ".env").get(name) or None

    def of(self, service: str, name: str) -> str | None:
        """What the files of settings of a container say: yours, then the service's; None if empty."""
        own = _read(FOLDER / (self.environ.get("CLUSTER_ENV") or ".env"))
        return own.get(name) or _read(FOLDER.parent / "services" / service / ".env").get(name) or None


def _read(path: Path) -> dict[str, str]:
    found = {}
    for line in path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else ():
        name, separator, value = line.strip().removeprefix("export ").partition("=")
        if separator and not name.startswith("#"):
            quoted = re.match(r"""\s*(['"])(.*?)\1""", value)
            found[name.strip()] = quoted[2] if quoted else re.sub(r"(^|\s)#.*", "", value).strip()
    return found


def open_to_containers(path: Path) -> bool:
    """Whether the services' user may read a file, or list and enter a folder."""
    if sys.platform != "linux":
        # Docker Desktop shows files as those of whoever asks.
        return True
    try:
        status = path.stat()
        if "system.posix_acl_access" in os.listxattr(path):
            # Whoever gave it a list of its own knows what for.
            return True
    except OSError:
        return True
    wanted = 0o5 if path.is_dir() else 0o4
    shift = 6 if status.st_uid == USER else 3 if status.st_gid == USER else 0
    return status.st_mode >> shift & wanted == wanted


def check_secrets(settings: Settings, services: list[str]) -> None:
    """Raises `UsageError` for what a service would fail to read; under umask 077 that is its empty folder."""
    root = FOLDER / (settings.given("SECRETS_DIR") or "secrets")
    closed = []
    for service in services:
        folder = root / service
        files = sorted(folder.glob("[!.]*")) if os.access(folder, os.R_OK | os.X_OK) else []
        closed += [str(path) for path in (folder, *files) if not open_to_containers(path)]
    if closed:
        raise UsageError(
            f"user {USER}, who runs the services, must be able to read the secrets: "
            f"chmod o+rX {' '.join(closed)}"
        )
