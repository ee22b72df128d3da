"""How exchanges and files write pairs, and which of ours they mean. Pure."""

import re
from collections.abc import Sequence

#: Kraken's old names of assets, which its REST API and its files still use.
KRAKEN_ASSETS = {"BTC": "XBT", "DOGE": "XDG"}
_ASSETS = {old: new for new, old in KRAKEN_ASSETS.items()}
#: Second halves of pairs that are written without a slash, longer ones first. Without TUSD and BUSD, since
#: XBTUSD is not XB/TUSD; who has files of those names the pairs.
_MONEY = ("FDUSD", "USDT", "USDC", "USD", "EUR", "GBP", "CAD", "JPY", "AUD", "CHF", "TRY", "BRL", "DAI")
QUOTES = (*_MONEY, "XBT", "BTC", "ETH", "BNB")
#: The second half is no year and no number of a part.
_FILE_PAIR = re.compile(r"^([A-Z0-9]{1,20})-([A-Z][A-Z0-9]{0,19})(?![A-Za-z0-9])")


def kraken_name(pair: str) -> str:
    """Name of a pair in Kraken's REST API and files, the `altname` of AssetPairs: ``XBTUSD``."""
    return "".join(KRAKEN_ASSETS.get(asset, asset) for asset in pair.split("/"))


def pair_of_name(name: str) -> str | None:
    """``BTC-USD-2024.csv`` is of BTC/USD."""
    match = _FILE_PAIR.match(name)
    return f"{match[1]}/{match[2]}" if match else None


def pair_of_stem(stem: str, pairs: Sequence[str]) -> str | None:
    """The pair that a downloaded file is of, by its name: ``XBTUSD``, ``XBTUSD_60``, ``BTCUSDT-trades-2024``.

    `pairs` are those that may be meant, or none for any.
    """
    symbol = re.split(r"[-_]", stem)[0].upper()
    for pair in pairs:
        if symbol in (pair.replace("/", ""), kraken_name(pair)):
            return pair
    found = pair_of_name(stem)
    if found is None or found.split("/")[1] not in QUOTES:
        # XBTUSD-TRADES is no pair of XBTUSD.
        found = _split(symbol) or found
    return found if found is not None and (not pairs or found in pairs) else None


def _split(symbol: str) -> str | None:
    for quote in QUOTES:
        base = symbol.removesuffix(quote)
        if base and base != symbol:
            return f"{_ASSETS.get(base, base)}/{_ASSETS.get(quote, quote)}"
    return None
