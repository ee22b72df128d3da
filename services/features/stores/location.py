"""Where a store is: a path or a URL, as people write it. Pure."""

from os import PathLike, fsdecode
from pathlib import Path
from urllib.parse import unquote, urlsplit

from services.common.errors import StoreError


def parse_location(path_or_url: str | PathLike[str]) -> tuple[str, Path]:
    """Name of the store and path of its file, for a path or a URL like ``sqlite:///data/f.sqlite``.

    As SQLAlchemy has it, three slashes begin a relative path and four an absolute one.
    Raises `StoreError` where that names no file.
    """
    try:
        text = fsdecode(path_or_url)
    except TypeError as error:
        raise StoreError(f"a feature store is a path or a URL, not {str(path_or_url)[:40]!r}") from error
    if "://" not in text:
        kind, path = "sqlite", Path(text).expanduser()
    else:
        parts = urlsplit(text)
        kind = parts.scheme
        path = Path(unquote(parts.netloc + parts.path).removeprefix("/")).expanduser()
    if kind == "sqlite" and not path.name:
        raise StoreError(f"{text!r} names no file; a feature store is like store/features.sqlite")
    return kind, path
