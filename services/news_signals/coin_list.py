"""The list of coins: what each is called, read from CSV files. Pure but for `load_coins`.

One line a coin, terms of a field separated by ``|``:

- ``coin``: the ticker under which signals go out; ``CRYPTO`` is the market as a whole.
- ``sure``: terms that mean the coin wherever they stand.
- ``capital``: names that do so where they are written with a capital first letter (Tether, Ripple).
- ``unsure``: terms that mean it where the text is about crypto or prices (Sui, Ripple, SOL), tickers also
  beside a price of their own.
- ``words``: everyday words, offices and laws, which mean it only where the words beside them say so (Near,
  Flow, DOGE). As tickers they need crypto, charts, a price or an amount, and no talk of offices; as names
  they must begin their phrase, so that market Optimism is none.
- ``not``: phrases in which its terms mean something else (Solana Beach). The longest term wins everywhere.

A term without a lower-case letter is a ticker and must be written so, or in any case after a ``$``; other
terms are names: sure ones in any case, the others with a capital first letter. ``$NOT`` is a ticker that only
counts with its ``$``.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from services.common.errors import SettingsError
from services.common.news import COIN_PATTERN
from services.news_signals.text import split_term

DEFAULT_PATH = Path(__file__).parent / "data" / "coins.csv"
FIELDS = ("coin", "sure", "capital", "unsure", "words", "not")
MAX_TERM_CHARS = 60
MAX_LINES = 10_000
type Grade = Literal["sure", "capital", "unsure", "words", "not"]
GRADES: tuple[Grade, ...] = get_args(Grade.__value__)
_COIN = re.compile(COIN_PATTERN)


@dataclass(frozen=True, slots=True)
class Coin:
    """One line of the list."""

    coin: str
    terms: Mapping[Grade, tuple[str, ...]]


def is_ticker(term: str) -> bool:
    """Whether a term is written as tickers are."""
    return term.upper() == term and any(character.isalpha() for character in term)


def parse_coins(text: str, name: str) -> dict[str, Coin]:
    """The coins of a CSV text, by ticker. Raises `SettingsError` naming `name`, the line and the field."""
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff")))
    coins: dict[str, Coin] = {}
    try:
        header = next(rows, [])
        if tuple(header) != FIELDS:
            raise SettingsError(f"{name}, line 1: the header must be {','.join(FIELDS)}")
        for row in rows:
            where = f"{name}, line {rows.line_num}"
            if not row or row[0].lstrip().startswith("#"):
                continue
            if len(coins) >= MAX_LINES:
                raise SettingsError(f"{where}: more than {MAX_LINES} coins")
            coin = _coin_of_row(row, where)
            if coin.coin in coins:
                raise SettingsError(f"{where}, coin: {coin.coin} was on a line before")
            coins[coin.coin] = coin
    except csv.Error as error:
        raise SettingsError(f"{name}, line {rows.line_num}: {error}") from error
    if not coins:
        raise SettingsError(f"{name}: names no coin")
    return coins


def _coin_of_row(row: list[str], where: str) -> Coin:
    if len(row) != len(FIELDS):
        raise SettingsError(f"{where}: {len(row)} fields, expected {len(FIELDS)}: {','.join(FIELDS)}")
    coin = row[0].strip()
    if not _COIN.match(coin):
        raise SettingsError(f"{where}, coin: {coin[:40]!r} is no ticker (1 to 20 of A-Z and 0-9)")
    terms: dict[Grade, tuple[str, ...]] = {}
    for grade, cell in zip(GRADES, row[1:], strict=True):
        found = tuple(term.strip() for term in cell.split("|")) if cell.strip() else ()
        for term in found:
            if not term or len(term) > MAX_TERM_CHARS or not split_term(term.removeprefix("$")):
                raise SettingsError(
                    f"{where}, {grade}: {term[:40]!r} is no term (1 to {MAX_TERM_CHARS} characters, with a "
                    "letter or a digit)"
                )
        terms[grade] = found
    if not any(terms[grade] for grade in GRADES if grade != "not"):
        raise SettingsError(f"{where}: {coin} has no term in {', '.join(GRADES[:-1])}")
    return Coin(coin, terms)


def check_terms(coins: Iterable[Coin], name: str) -> None:
    """Refuse a list in which one term stands for two coins. Raises `SettingsError`."""
    owners: dict[str, str] = {}
    for coin in coins:
        for grade in GRADES[:-1]:
            for term in coin.terms[grade]:
                # NEAR and Near are two terms of one coin, as a ticker and as a name.
                owner = owners.setdefault(term.casefold(), coin.coin)
                if owner != coin.coin:
                    raise SettingsError(f"{name}, {grade} of {coin.coin}: {term!r} is {owner} already")


def load_coins(path: Path | None = None, *, replace: bool = False) -> tuple[Coin, ...]:
    """Our list, with the lines of the file `path` in place of ours of the same coin and new coins added.

    With `replace` the file is the whole list. Raises `SettingsError`.
    """
    coins = parse_coins(DEFAULT_PATH.read_text(encoding="utf-8"), DEFAULT_PATH.name)
    name = DEFAULT_PATH.name
    if path is not None:
        name = str(path)
        try:
            own = parse_coins(path.read_text(encoding="utf-8-sig"), name)
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"the list of coins {path} cannot be read: {error}") from error
        coins = own if replace else coins | own
    check_terms(coins.values(), name)
    return tuple(coins.values())
