"""Which tellings of a story were here before, and how new the others are. Pure; what is kept is small."""

import msgspec

from services.common.messages import TimeMs

#: Each further telling is worth so much of the one before.
DECAY = 0.75
#: The contract wants a novelty above 0; the 73rd telling reaches this.
FLOOR = 1e-9
#: So many tellings are known one by one.
KEPT = 50


class Tellings(msgspec.Struct, array_like=True, gc=False):
    """The tellings of a story so far: how many, and when the last ones were observed, ascending."""

    count: int = 0
    times_ms: list[TimeMs] = msgspec.field(default_factory=list)

    def admit(self, observed_at_ms: int) -> float | None:
        """Novelty of a telling, or None for one that was here before.

        What is observed no later than all of the kept ones, once some were dropped, passes for a repeat:
        tellings of a story are observed one after the other.
        """
        times = self.times_ms
        if observed_at_ms in times or (self.count > len(times) and observed_at_ms <= times[0]):
            return None
        times.append(observed_at_ms)
        times.sort()
        del times[:-KEPT]
        self.count += 1
        return max(FLOOR, DECAY ** (self.count - 1))


_decoder = msgspec.msgpack.Decoder(Tellings)
_encoder = msgspec.msgpack.Encoder()


def load_tellings(stored: bytes | None) -> Tellings:
    """The tellings as `dump_tellings` wrote them; none where nothing is stored."""
    return Tellings() if stored is None else _decoder.decode(stored)


def dump_tellings(tellings: Tellings) -> bytes:
    """At most some 500 bytes."""
    return _encoder.encode(tellings)
