"""API keys: random, kept as hashes in one file, shown once."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import NotFoundError, SetupError, UsageError
from orchestrator.settings import Settings

_SHAPE: Final = re.compile(r"mt_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NAME: Final = re.compile(r"[\w][\w .@-]{0,63}")
_NO_DIGEST: Final = "0" * 64


@dataclass(frozen=True)
class Limits:
    """What a key may use.

    Attributes:
        sessions: live ones at a time.
        jobs: unfinished video jobs at a time.
        video_seconds: of video made in a UTC day, live and recorded.
    """

    sessions: int = 4
    jobs: int = 20
    video_seconds: int = 3600


@dataclass(frozen=True)
class ApiKey:
    """A key as the file has it: enough to recognise it, not to use it.

    Attributes:
        id: public part; owner of what is made with the key.
        name: whose it is.
        digest: SHA-256 of the whole key, hexadecimal. A key has 256 random bits: there is
            nothing to guess that a slow hash would have to protect.
        created: UTC, ISO 8601.
        limits: what it may use.
    """

    id: str
    name: str
    digest: str
    created: str
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class _Content:
    keys: list[ApiKey]


_CONTENT: Final = TypeAdapter(_Content)


def keys_path(settings: Settings) -> Path:
    """Where the keys are."""
    return settings.api_keys_file or settings.cache_dir / "keys.json"


class KeyFile:
    """The file with the hashes of all keys; read again when it changes.

    Args:
        path: of the file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version: tuple[int, int, int] | None = None
        self._keys: dict[str, ApiKey] = {}
        self._lock = threading.Lock()

    def keys(self) -> dict[str, ApiKey]:
        """The keys by id; none without a file.

        Raises:
            SetupError: the file is damaged or cannot be read.
        """
        with self._lock:
            try:
                known = self.path.stat()
                version = (known.st_mtime_ns, known.st_size, known.st_ino)
                if version != self._version:
                    content = _CONTENT.validate_json(self.path.read_bytes())
                    self._keys = {key.id: key for key in content.keys}
                    self._version = version
            except FileNotFoundError:
                self._keys, self._version = {}, None
            except (OSError, ValidationError) as error:
                why = error.strerror if isinstance(error, OSError) else "it is damaged"
                raise SetupError(
                    f"the API keys in {self.path} cannot be read: {why}",
                    remedy="make it again with musetalk keys add",
                ) from error
            return self._keys

    def find(self, secret: str) -> ApiKey | None:
        """The key that a client sent; takes the same time for each wrong one.

        Raises:
            SetupError: the file is damaged or cannot be read.
        """
        parts = _SHAPE.fullmatch(secret)
        key = self.keys().get(parts[1]) if parts else None
        digest = hashlib.sha256(secret.encode(errors="replace")).hexdigest()
        same = hmac.compare_digest(digest, key.digest if key else _NO_DIGEST)
        return key if same else None

    def add(self, name: str, limits: Limits) -> tuple[ApiKey, str]:
        """Make a key.

        Args:
            name: whose it is.
            limits: what it may use.

        Returns:
            The key, and its secret, which nobody can get again.

        Raises:
            UsageError: the name cannot be used, or is taken.
            SetupError: the file cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(
                "that cannot be the name of a key",
                remedy="use letters, digits, space, dot, at, hyphen; at most 64",
            )
        keys = self.keys()
        if any(key.name == name for key in keys.values()):
            raise UsageError(f"there is a key {name!r} already", remedy="remove it first")
        identity = secrets.token_hex(6)
        secret = f"mt_{identity}_{secrets.token_urlsafe(32)}"
        digest = hashlib.sha256(secret.encode()).hexdigest()
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        key = ApiKey(identity, name, digest, created, limits)
        self._write([*keys.values(), key])
        return key, secret

    def remove(self, name: str) -> None:
        """Make a key useless, by its name or id, from the next request on.

        Raises:
            NotFoundError: there is none.
            SetupError: the file cannot be written.
        """
        keys = list(self.keys().values())
        left = [key for key in keys if name not in (key.name, key.id)]
        if len(left) == len(keys):
            known = ", ".join(key.name for key in keys) or "none"
            raise NotFoundError(f"there is no key {name!r}", remedy=f"there are: {known}")
        self._write(left)

    def _write(self, keys: list[ApiKey]) -> None:
        content = json.dumps({"keys": [asdict(key) for key in keys]}, indent=1)
        temporary = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Readable by its owner only, as mkstemp makes it.
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".keys")
            with os.fdopen(handle, "w") as file:
                file.write(content + "\n")
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except OSError as error:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
            raise SetupError(f"{self.path} cannot be written: {error.strerror}") from error
