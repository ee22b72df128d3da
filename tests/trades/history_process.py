"""A historical run as a process, for tests that kill it: ``STATE URL OUT UNTIL_MS``.

It writes a line to OUT for each message that the broker would have, and a message is confirmed then.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from services.common.messages import Trade
from tests.trades.history_support import prepare
from tests.trades.support import FakePublisher


class FilePublisher(FakePublisher):
    """What is in the file survives a kill."""

    out = Path(sys.argv[3])

    def trades(self, pair: str, rows: Sequence[Trade], received_at_ms: int) -> None:
        self._write(f"trades {','.join(str(row.trade_id) for row in rows)}")
        super().trades(pair, rows, received_at_ms)

    def begin(self, pair: str, since_ms: int, now_ms: int) -> None:
        self._write(f"begin {since_ms}")

    def end(self, pair: str, known_until_ms: int, now_ms: int, series: int) -> None:
        self._write(f"end {known_until_ms}")

    def _write(self, line: str) -> None:
        with self.out.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    run = prepare(
        Path(sys.argv[1]),
        sys.argv[2],
        publisher=FilePublisher,
        until=sys.argv[4],
        rest_interval_s="0.01",
        batch_rows="25",
    )
    run.source.run(run.stop)
