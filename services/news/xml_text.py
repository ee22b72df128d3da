"""A feed's bytes as text that is safe to parse: encodings and characters we know, nothing declared. Pure."""

import codecs
import re

from services.common.errors import SourceUnavailableError
from services.news.text import drop_bad_references

_DECLARED = re.compile(rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
# Encodings whose ASCII characters are ASCII bytes. With another one (UTF-7, EBCDIC) a declaration could be
# written so that it shows up only to who decodes it.
_HARMLESS = re.compile(
    r"^(?:utf-?8|us-ascii|ascii|iso-?8859-\d{1,2}|latin-?1|windows-125\d|cp125\d|koi8-[ru]|gb2312|gbk|gb18030"
    r"|big5|euc-(?:jp|kr)|shift_jis)$",
    re.IGNORECASE,
)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_XML_DECLARATION = re.compile(r"\s*<\?xml\b.*?\?>", re.DOTALL)
_MISC = re.compile(r"\s*(?:<\?.*?\?>|<!--.*?-->)", re.DOTALL)
_ROOT = re.compile(r"\s*<[A-Za-z_]")


def feed_text(body: bytes, charset: str | None) -> str:
    """Text of an XML document without its XML declaration; `charset` is what HTTP says of it.

    Raises `SourceUnavailableError` for a document with a DOCTYPE (and with it entities) before its root
    element, the only place where XML allows one, and for what does not begin like XML.
    """
    text = _decode(body, charset)
    text = _XML_DECLARATION.sub("", text, count=1) if _XML_DECLARATION.match(text) else text
    at = 0
    while match := _MISC.match(text, at):
        at = match.end()
    rest = text[at : at + 200].lstrip()
    if rest[:9].lower() == "<!doctype" or rest[:8].lower() == "<!entity":
        what = "an HTML page" if rest[:14].lower() == "<!doctype html" else "XML with a DOCTYPE"
        raise SourceUnavailableError(f"sent {what}, which is refused; is this the address of a feed?")
    if not _ROOT.match(rest):
        raise SourceUnavailableError("sent no XML; is this the address of a feed?")
    return drop_bad_references(text)


def _decode(body: bytes, charset: str | None) -> str:
    for bom, encoding in _BOMS:
        if body.startswith(bom):
            return body[len(bom) :].decode(encoding, "replace")
    head = body[:4]
    if b"\0" in head:
        wide = "utf-32" if head.count(0) == 3 else "utf-16"
        return body.decode(f"{wide}-{'be' if head[:1] == b'\0' else 'le'}", "replace")
    try:
        # Right whenever it succeeds, whatever header and declaration say; they are wrong more often.
        return body.decode("utf-8")
    except UnicodeDecodeError:
        declared = _DECLARED.search(body[:1_000])
        named = declared[1].decode() if declared else charset or "utf-8"
        return body.decode(named if _is_known(named) else "utf-8", "replace")


def _is_known(encoding: str) -> bool:
    """Whether it is harmless and one that there is: a feed may name ISO-8859-12."""
    try:
        return bool(_HARMLESS.match(encoding) and codecs.lookup(encoding))
    except LookupError:
        return False
