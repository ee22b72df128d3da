"""feedparser's two parsers, bounded: what they stumble over costs one element, and time is limited. Pure.

`feedparser.parse` has no limits, and some documents of a few megabytes keep it busy for hours: it compares
each category of an article with all others, each attribute of an element too, and joins addresses anew for
every element. Its classes are the same parsers, without its ways to fetch and to guess encodings.
"""

import io
import re
import xml.sax
from collections.abc import Callable
from time import thread_time
from typing import Any, NamedTuple
from xml.sax.handler import feature_external_ges, feature_namespaces
from xml.sax.xmlreader import InputSource

from feedparser.api import LooseFeedParser, StrictFeedParser

from services.common.errors import SourceUnavailableError

#: Feeds have some thousand tags and some dozen articles.
MAX_TAGS = 200_000
MAX_ENTRIES = 20_000
MAX_ATTRIBUTES = 1_000
#: What is not well-formed is read by regular expressions, which cannot be stopped on their way.
MAX_BROKEN_CHARS = 1_000_000
#: Seconds of processor time for a document; large feeds take some tenths.
MAX_CPU_S = 4.0
_ENTRY = re.compile(r"<(?:item|entry)[\s/>]", re.IGNORECASE)


class Document(NamedTuple):
    """Entries as feedparser gives them. `is_whole` is False when the XML is broken somewhere."""

    entries: list[Any]
    is_feed: bool
    is_whole: bool


def read_document(text: str, cpu_s: Callable[[], float] = thread_time) -> Document:
    """The entries of RSS or Atom. Raises `SourceUnavailableError` for what is too much or cannot be read."""
    if text.count("<") > MAX_TAGS:
        raise SourceUnavailableError(f"sent more than {MAX_TAGS:,} tags, which is no feed")
    if sum(1 for _ in _ENTRY.finditer(text)) > MAX_ENTRIES:
        raise SourceUnavailableError(f"sent more than {MAX_ENTRIES:,} articles, which is no feed")
    end_s = cpu_s() + MAX_CPU_S

    def check_time() -> None:
        if cpu_s() > end_s:
            raise SourceUnavailableError(f"sent a feed that takes more than {MAX_CPU_S:g} s to read")

    try:
        return _document(_read_strictly(text, check_time), is_whole=True)
    except SourceUnavailableError:
        raise
    except Exception as error:
        # Most are not well-formed, and the rest is for the other parser to try.
        if len(text) > MAX_BROKEN_CHARS:
            raise SourceUnavailableError(
                f"sent {len(text):,} characters of XML that is not well-formed; at most "
                f"{MAX_BROKEN_CHARS:,} of such are read"
            ) from error
    try:
        return _document(_read_loosely(text, check_time), is_whole=False)
    except SourceUnavailableError:
        raise
    except Exception as error:
        # The library raises whatever happens to it on its way through a text that anybody may have
        # written. It is the feed that is wrong then and no bug of ours, and it must not end the service.
        raise SourceUnavailableError(f"sent a feed that cannot be read ({type(error).__name__})") from error


def _document(parser: Any, *, is_whole: bool) -> Document:
    return Document(parser.entries, bool(parser.version or parser.entries), is_whole)


def _read_strictly(text: str, check_time: Callable[[], None]) -> Any:
    parser = _Strict("", None, "utf-8")
    parser.check_time = check_time
    reader = xml.sax.make_parser()  # noqa: S317 - `xml_text` has refused every DOCTYPE
    reader.setFeature(feature_namespaces, True)
    reader.setFeature(feature_external_ges, False)
    reader.setContentHandler(parser)
    reader.setErrorHandler(parser)
    source = InputSource()
    source.setEncoding("utf-8")
    source.setByteStream(io.BytesIO(text.encode("utf-8", "replace")))
    reader.parse(source)
    return parser


def _read_loosely(text: str, check_time: Callable[[], None]) -> Any:
    parser = _Loose("", None, "utf-8", {})
    parser.check_time = check_time
    parser.feed(text)
    return parser


def _bounded(base: Any) -> Any:
    """The parser `base`, which stops in time and passes over a single element that it cannot read."""

    class Bounded(base):  # type: ignore[misc]
        check_time: Callable[[], None]
        depth: int
        sanitize_html = resolve_relative_uris = False

        def startElementNS(self, name: Any, qname: Any, attrs: Any) -> None:  # noqa: N802
            if len(attrs) > MAX_ATTRIBUTES:
                raise SourceUnavailableError(f"sent a tag with more than {MAX_ATTRIBUTES:,} attributes")
            super().startElementNS(name, qname, attrs)

        def unknown_starttag(self, tag: str, attrs: Any) -> None:
            self.check_time()
            try:
                super().unknown_starttag(tag, attrs)
            except SourceUnavailableError:
                raise
            except Exception:
                # As in `read_document`, but here the other elements can still be read.
                return

        def unknown_endtag(self, tag: str) -> None:
            self.check_time()
            depth = self.depth
            try:
                super().unknown_endtag(tag)
            except SourceUnavailableError:
                raise
            except Exception:
                self.depth = depth - 1

        def pop(self, element: str, strip_whitespace: int = 1) -> Any:
            # The library takes blanks off the front one by one, and moves all the rest each time.
            pieces = self.elementstack[-1][2] if self.elementstack else None
            if isinstance(pieces, list):
                blanks = next((at for at, piece in enumerate(pieces) if piece.strip()), len(pieces))
                del pieces[:blanks]
            return super().pop(element, strip_whitespace)

        # Nothing that we read, and slow: each category is compared with all others, and an author is
        # searched for an address from every letter on.

        def _add_tag(self, term: Any, scheme: Any, label: Any) -> None:  # noqa: ARG002
            self._get_context().setdefault("tags", [])

        def _sync_author_detail(self, key: str = "author") -> None:
            """Leave authors as they are."""

    return Bounded


_Strict, _Loose = _bounded(StrictFeedParser), _bounded(LooseFeedParser)
