"""Which trade ids of a pair were seen already, as a short list of ranges. Pure.

Exchanges number a pair's trades without gaps, so that this is one range nearly always.
"""

from bisect import bisect_right

#: More ranges than this are merged from the oldest on: the state must stay small. An unseen id
#: between merged ranges then counts as a duplicate, which only ids full of gaps can meet.
MAX_RANGES = 256


class SeenIds:
    """Ranges ``[low, high]`` of ids, ascending and disjoint. `ranges` is the state to keep."""

    __slots__ = ("ranges",)

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self.ranges = ranges

    def __contains__(self, trade_id: int) -> bool:
        index = bisect_right(self.ranges, (trade_id, 2**63)) - 1
        return index >= 0 and trade_id <= self.ranges[index][1]

    def is_new_run(self, first: int, last: int) -> bool:
        """Whether the ids `first` … `last` all come after those seen so far.

        If so they are noted, and the caller need not look at them one by one.
        """
        if not self.ranges:
            self.ranges.append((first, last))
            return True
        low, high = self.ranges[-1]
        if first <= high:
            return False
        if first == high + 1:
            self.ranges[-1] = (low, last)
        else:
            self._insert(len(self.ranges), (first, last))
        return True

    def add(self, trade_id: int) -> bool:
        """Note an id; False when it was seen before."""
        ranges = self.ranges
        index = bisect_right(ranges, (trade_id, 2**63)) - 1
        if index >= 0 and trade_id <= ranges[index][1]:
            return False
        joins_left = index >= 0 and ranges[index][1] == trade_id - 1
        joins_right = index + 1 < len(ranges) and ranges[index + 1][0] == trade_id + 1
        if joins_left and joins_right:
            ranges[index : index + 2] = [(ranges[index][0], ranges[index + 1][1])]
        elif joins_left:
            ranges[index] = (ranges[index][0], trade_id)
        elif joins_right:
            ranges[index + 1] = (trade_id, ranges[index + 1][1])
        else:
            self._insert(index + 1, (trade_id, trade_id))
        return True

    def discard(self, trade_id: int) -> None:
        """Forget an id."""
        index = bisect_right(self.ranges, (trade_id, 2**63)) - 1
        if index < 0 or trade_id > self.ranges[index][1]:
            return
        low, high = self.ranges[index]
        rest = [(low, trade_id - 1), (trade_id + 1, high)]
        self.ranges[index : index + 1] = [run for run in rest if run[0] <= run[1]]

    def _insert(self, index: int, run: tuple[int, int]) -> None:
        self.ranges.insert(index, run)
        if len(self.ranges) > MAX_RANGES:
            self.ranges[:2] = [(self.ranges[0][0], self.ranges[1][1])]
