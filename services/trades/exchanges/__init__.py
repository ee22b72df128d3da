"""The exchanges: one file each, registered here."""

from services.trades.exchanges.binance import Binance
from services.trades.exchanges.coinbase import Coinbase
from services.trades.exchanges.contract import Exchange
from services.trades.exchanges.kraken import Kraken

REGISTRY: dict[str, type[Exchange]] = {
    "kraken": Kraken,
    "coinbase": Coinbase,
    "binance": Binance,
}
