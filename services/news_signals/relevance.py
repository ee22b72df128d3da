"""How much of a story is about each of its coins. Pure.

A coin weighs what its best place does: 1 in the title, 0.3 in the body's lead, 0.1 further down, 0.05 where
only the source names it; up to a tenth less the later it stands there, up to a half more the more often it is
named, a quarter more when the source names it as well. That is its relevance, divided among the coins once
they weigh more than 1 together: a coin alone in a title has about 1, two of them about a half each.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from services.news_signals.coins import Found
from services.news_signals.judge import LEAD_CHARS

TITLE, LEAD, REST, HINT = range(4)
#: What a place weighs.
WEIGHT = (1.0, 0.3, 0.1, 0.05)
LATE = 0.1
REPEATED = 0.1
MAX_REPEATS = 5
HINTED = 1.25


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a coin stands: its best place, how far into it (0 to 1), how often it is named, hinted or not."""

    place: int
    depth: float = 0.0
    count: int = 1
    hinted: bool = False

    @property
    def weight(self) -> float:
        """Its part of the story before the coins share, above 0."""
        weight = WEIGHT[self.place] * (1 - LATE * self.depth)
        if self.place == HINT:
            return weight
        weight *= 1 + REPEATED * min(self.count - 1, MAX_REPEATS)
        return weight * HINTED if self.hinted else weight


def standings(found: Found, title: str, body: str) -> dict[str, Standing]:
    """Where each coin of a story stands."""
    best: dict[str, tuple[int, float]] = {}
    counts: dict[str, int] = {}
    after_lead = max(1, len(body) - LEAD_CHARS)
    places: Iterable[tuple[str, int, float]] = (
        *((m.coin, TITLE, m.start / max(1, len(title))) for m in found.mentions),
        *(
            (m.coin, LEAD, m.start / LEAD_CHARS)
            if m.start < LEAD_CHARS
            else (m.coin, REST, (m.start - LEAD_CHARS) / after_lead)
            for m in found.body_mentions
        ),
    )
    for coin, place, depth in places:
        best[coin] = min(best.get(coin, (place, depth)), (place, depth))
        counts[coin] = counts.get(coin, 0) + 1
    return {
        coin: Standing(*best[coin], counts[coin], coin in found.hinted) if coin in best else Standing(HINT)
        for coin in found.coins
    }


def relevances(coins: dict[str, Standing]) -> dict[str, float]:
    """Relevance of each coin, above 0; together at most 1. Empty for a story without coins."""
    # Summed in one order, so that the order of the coins does not show in the last bit.
    total = max(1.0, sum(sorted(standing.weight for standing in coins.values())))
    return {coin: standing.weight / total for coin, standing in coins.items()}
