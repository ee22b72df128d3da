"""Where a store is: a path or a URL, as people write it. Pure."""

from os import PathLike, fspath
from pathlib import Path
from urllib.parse import unquote, urlsplit


def parse_location(path_or_url: str | PathLike[str]) -> tuple[str, Path]:
    """Name of the store and path of its file, for a path or a URL like ``sqlite:///data/f.sqlite``.

    As SQLAlchemy has it, three slashes begin a relative path and four an absolute one.
    """
    text = fspath(path_or_url)
    if "://" not in text:
        return "sqlite", Path(text).expanduser()
    parts = urlsplit(text)
    return parts.scheme, Path(unquote(parts.netloc + parts.path).removeprefix("/")).expanduser()
