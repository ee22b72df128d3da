"""Trade ids in sequence: what is new, what is double, where a hole is. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from services.common.messages import Trade


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of some trades: `fresh` follow the sequence, `held` come after a hole."""

    fresh: list[Trade]
    held: list[Trade]
    duplicates: int


class IdSequence:
    """The last id of a pair that is done with; ids follow each other without gaps.

    `last_id` None: nothing known yet, the first trade seen begins the sequence.
    """

    def __init__(self, last_id: int | None = None) -> None:
        self.last_id = last_id

    def accept(self, trades: Iterable[Trade]) -> Accepted:
        """Take the trades that continue the sequence; the caller keeps the `held` ones."""
        rows = list(trades)
        known = {trade.trade_id: trade for trade in rows}
        last = self.last_id
        ordered = [known[trade_id] for trade_id in sorted(known) if last is None or trade_id > last]
        duplicates = len(rows) - len(ordered)
        for index, trade in enumerate(ordered):
            if last is not None and trade.trade_id != last + 1:
                self.last_id = last
                return Accepted(ordered[:index], ordered[index:], duplicates)
            last = trade.trade_id
        self.last_id = last
        return Accepted(ordered, [], duplicates)

    def skip_to(self, trade_id: int) -> None:
        """Give up the ids up to and including `trade_id`."""
        if self.last_id is None or trade_id > self.last_id:
            self.last_id = trade_id
