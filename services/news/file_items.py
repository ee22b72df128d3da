"""Rows of a file of news → articles. Pure."""

from datetime import UTC, datetime
from typing import Any

from services.common.errors import ContractError
from services.news.contract import Bad, Item, raw_bytes
from services.news.file_rows import Row
from services.news.settings import FILE_FIELDS
from services.news.text import coin_codes, cut_body, headline, strip_html, web_address
from services.news.times import NotATimeError, parse_time

#: The feed that a file's articles are of.
FEED = "file"
MAX_RAW_CHARS = 20_000


class RowReader:
    """Reads rows whose columns the settings name; the others keep their field's name."""

    def __init__(self, columns: dict[str, str], source: str, delay_s: float) -> None:
        self._columns = {name: columns.get(name, name) for name in FILE_FIELDS}
        self._source = source
        self._delay_ms = int(delay_s * 1000)
        #: The columns that a file must have.
        self.required = {self._columns[name] for name in ("title", "published", *columns)}

    def read(self, row: Row, now_ms: int) -> Item | Bad | None:
        """The article of a row, why it is none, or None for one without words.

        Raises `WrongUnitError` for times that are in another unit than milliseconds.
        """
        if row.cells is None:
            error = ContractError("bad_row", f"row {row.number} {row.problem}")
            return Bad(None, row.raw[:MAX_RAW_CHARS], error)
        cell = {name: row.cells.get(column) for name, column in self._columns.items()}
        try:
            if any("\udc80" <= char <= "\udcff" for value in row.cells.values() for char in _odd(value)):
                raise ContractError("bad_row", f"row {row.number} is no UTF-8")
            try:
                published = parse_time(cell["published"])
            except NotATimeError as error:
                raise ContractError("missing_date", f"row {row.number}: {error}") from None
            observed_ms = self._observed_ms(row, published.latest_ms, cell["observed"], now_ms)
        except ContractError as error:
            shown = {str(key): str(value)[:MAX_RAW_CHARS] for key, value in row.cells.items()}
            return Bad(None, raw_bytes(shown), error)
        body = cut_body(strip_html(_text(cell["body"])))
        title = headline(strip_html(_text(cell["title"])), body)
        if not title:
            return None
        return Item(
            FEED,
            _text(cell["id"]).strip() or None,
            strip_html(_text(cell["source"]))[:100].strip() or self._source,
            title,
            body,
            web_address(_text(cell["url"])),
            coin_codes(_coins(cell["coins"])),
            published.ms,
            observed_ms,
        )

    def _observed_ms(self, row: Row, published_ms: int, observed: object, now_ms: int) -> int:
        if observed is None or observed == "":
            observed_ms = published_ms + self._delay_ms
            why = "its publication and NEWS_FILE_DELAY_S; map a column observed if it was seen earlier"
        else:
            try:
                observed_ms = parse_time(observed).latest_ms
            except NotATimeError as error:
                raise ContractError("bad_row", f"row {row.number}: observed: {error}") from None
            why = f"its column {self._columns['observed']}"
        if observed_ms > now_ms:
            # Whoever reads the news refuses what is observed after now.
            raise ContractError(
                "future_event", f"row {row.number} is not observed before {_utc(observed_ms)}, by {why}"
            )
        return observed_ms


def _utc(at_ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError):
        return f"{at_ms} ms"


def _odd(value: object) -> str:
    return value if isinstance(value, str) and not value.isascii() else ""


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _coins(value: object) -> list[Any]:
    if isinstance(value, list):
        return value
    return _text(value).replace(";", ",").replace("|", ",").replace(" ", ",").split(",")
