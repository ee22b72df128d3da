"""Up to when is it known that nothing more traded? Pure.

A trade needs some time from the exchange to us. A frame received at T therefore proves only that
everything up to T minus that time is here, provided that trades of late did not take longer.
"""

WINDOW_MS = 60_000


class DeliveryDelay:
    """The longest delivery of the last one to two minutes, and never less than `least_ms`."""

    def __init__(self, least_ms: int) -> None:
        self._least_ms = least_ms
        self._window = 0
        self._current = 0
        self._previous = 0

    def observe(self, event_time_ms: int, received_at_ms: int) -> None:
        """A trade came live."""
        window = received_at_ms // WINDOW_MS
        if window != self._window:
            self._previous = self._current if window == self._window + 1 else 0
            self._window, self._current = window, 0
        self._current = max(self._current, received_at_ms - event_time_ms)

    def known_until_ms(self, last_frame_ms: int) -> int:
        """The time up to which no more trades can come, given when the last frame came."""
        return last_frame_ms - max(self._least_ms, self._current, self._previous)
