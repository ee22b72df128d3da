"""Text of articles: HTML to words, no control characters, a bounded length. Pure."""

import re
from collections.abc import Iterator
from html import unescape

from services.common.news import COIN_PATTERN, MAX_BODY_CHARS, MAX_TITLE_CHARS

#: Markup is looked at this far; the words in it are at most as many.
MAX_MARKUP_CHARS = 10 * MAX_BODY_CHARS
MAX_URL_CHARS = 2_000
_HIDDEN = {"script", "style", "template", "noscript", "svg"}
# Words on both sides of any other tag are two words.
_INLINE = {
    "a", "abbr", "b", "code", "em", "font", "i", "mark", "s", "small", "span", "strong", "sub", "sup", "u",
}  # fmt: skip
#: What may begin a tag whose end is cut off. Before any other name a ``<`` that nothing closes is a sign.
_CUT = _HIDDEN | _INLINE | {
    "article", "aside", "audio", "blockquote", "br", "button", "caption", "center", "cite", "dd", "div", "dl",
    "dt", "embed", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header",
    "hr", "iframe", "img", "input", "label", "li", "link", "main", "meta", "nav", "ol", "p", "picture", "pre",
    "q", "section", "source", "table", "tbody", "td", "th", "thead", "time", "tr", "ul", "video",
}  # fmt: skip
_TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9:-]{0,30})|<[!?/]")
_ANGLE = re.compile(r"[<>]")
_TAG_END = re.compile(r"[>\"']")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_COIN = re.compile(COIN_PATTERN)
_REFERENCE = re.compile(r"&#(?:[xX]0*([0-9a-fA-F]+)|0*([0-9]+));?")
#: Stands for what is no character, as in HTML.
UNKNOWN = "\ufffd"


def drop_bad_references(text: str) -> str:
    """`text` with `UNKNOWN` for each reference by number to what is no character of XML.

    Parsers stumble over them: half of a surrogate pair is no text, and nobody knows so large a number.
    """
    return _REFERENCE.sub(_known_reference, text) if "&#" in text else text


def _known_reference(match: re.Match[str]) -> str:
    digits = match[1] or match[2]
    # As many as the largest number of a character has.
    code = int(digits, 16 if match[1] else 10) if len(digits) <= 7 else -1
    is_character = code in (9, 10, 13) or 32 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD
    return match[0] if is_character or 0x10000 <= code <= 0x10FFFF else UNKNOWN


def strip_html(text: str) -> str:
    """The words of `text`, which may hold markup, in one line."""
    text = text[:MAX_MARKUP_CHARS]
    return one_line(unescape(drop_bad_references("".join(_outside_tags(text)) if "<" in text else text)))


def _outside_tags(text: str) -> Iterator[str]:
    # By hand, since the standard library's parser takes quadratic time over tags that are left open, and
    # holds up everything meanwhile. Here each character is passed once: a search that fails ends the text.
    at = 0
    while match := _TAG.search(text, at):
        name = (match[1] or "").lower()
        if name and name not in _CUT:
            ends = _ANGLE.search(text, match.end())
            if ends is None or ends[0] == "<":
                yield text[at : match.end()]
                at = match.end()
                continue
        yield text[at : match.start()]
        if name not in _INLINE:
            yield " "
        if text.startswith("<!--", match.start()):
            at = _after(text, "-->", match.end())
            continue
        at = _tag_end(text, match.end())
        if name in _HIDDEN and text[match.start() + 1] != "/":
            closing = re.compile(f"</{name}", re.IGNORECASE).search(text, at)
            at = closing.start() if closing else len(text)
    yield text[at:]


def _tag_end(text: str, at: int) -> int:
    """Behind the ``>`` of a tag, passing over those in quotation marks."""
    while match := _TAG_END.search(text, at):
        if match[0] == ">":
            return match.end()
        at = _after(text, match[0], match.end())
    return len(text)


def _after(text: str, mark: str, at: int) -> int:
    found = text.find(mark, at)
    return len(text) if found < 0 else found + len(mark)


def one_line(text: str) -> str:
    """`text` with every run of white space and control characters as one space."""
    return " ".join(_CONTROL.sub(" ", text).split())


def headline(title: str, body: str) -> str:
    """The title within its limit; that of an article without one is how its text begins."""
    return (title or body[:200])[:MAX_TITLE_CHARS].rstrip()


def cut_body(text: str) -> str:
    """The body within its limit."""
    return text[:MAX_BODY_CHARS].rstrip()


def web_address(text: str) -> str | None:
    """An http(s) address that fits the contract, or None."""
    text = text.strip()
    if len(text) > MAX_URL_CHARS or not text.lower().startswith(("http://", "https://")):
        return None
    return None if _CONTROL.search(text) or " " in text else text


def coin_codes(codes: list[object]) -> tuple[str, ...]:
    """Those of `codes` that can be coins, in upper case, each once and at most a hundred."""
    upper = (code.strip().upper() for code in codes if isinstance(code, str))
    return tuple(dict.fromkeys(code for code in upper if _COIN.match(code)))[:100]
