"""The news_signals service: what each story says of each coin.

To judge an engine on headlines of your own: ``from services.news_signals import score_headlines``.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.news_signals.headlines import HeadlineScore


def score_headlines(headlines: str | Iterable[str], engine: str = "embedded") -> "list[HeadlineScore]":
    """Score headlines as the service would: each as a whole (`overall`) and for each coin (`coins`).

    A list comes back, also for a single text. `engine` is ``embedded`` or ``llm``; settings are read from
    ``NEWS_SIGNALS_…``. Raises `SettingsError`.

    >>> score_headlines(["Bitcoin rallies as Ether slips"])[0].coins["BTC"].label   # doctest: +SKIP
    'positive'
    """
    # Imported here so that importing a part of the service does not load all of it.
    from services.news_signals.headlines import HeadlineScorer

    with HeadlineScorer(engine) as scorer:
        return scorer.score(headlines)
