"""What watches a connection: silence of the socket, missing acks, pairs without data. Pure."""


class SocketWatch:
    """Has any frame, ping or pong come lately?"""

    def __init__(self, silent_after_s: float) -> None:
        self._silent_after_s = silent_after_s
        self._last_s: float | None = None

    def reset(self, now_s: float) -> None:
        """A connection begins."""
        self._last_s = now_s

    def seen(self, now_s: float) -> None:
        """Something came."""
        self._last_s = now_s

    def is_silent(self, now_s: float) -> bool:
        """Whether the connection must be taken for dead."""
        return self._last_s is not None and now_s - self._last_s > self._silent_after_s


class PairWatch:
    """Which acked pairs sent nothing for long, although the socket lives?"""

    def __init__(self, quiet_after_s: float) -> None:
        self._quiet_after_s = quiet_after_s
        self._last_s: dict[str, float] = {}

    def seen(self, pair: str, now_s: float) -> None:
        """Trades of `pair` came, or it was looked at."""
        self._last_s[pair] = now_s

    def quiet(self, now_s: float) -> list[str]:
        """Pairs to look at; each is named once in `quiet_after_s`."""
        pairs = [pair for pair, at in self._last_s.items() if now_s - at > self._quiet_after_s]
        for pair in pairs:
            self._last_s[pair] = now_s
        return pairs

    def reset(self, pairs: tuple[str, ...], now_s: float) -> None:
        """All pairs are subscribed anew."""
        self._last_s = dict.fromkeys(pairs, now_s)
