"""The sources: one file each, registered here."""

from collections.abc import Callable, Sequence

from services.news.contract import Source
from services.news.fetch import Fetcher
from services.news.settings import NewsSettings
from services.news.sources import cryptopanic, file, rss

#: Makes the feeds of a source. Raises `SourceError`.
type OpenSource = Callable[[NewsSettings, Fetcher, Callable[[], int]], Sequence[Source]]

REGISTRY: dict[str, OpenSource] = {
    "rss": rss.open_source,
    "cryptopanic": cryptopanic.open_source,
    "file": file.open_source,
}
