"""What a question says of keys. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from services.common.errors import QueryError
from services.features.given import several, single
from services.features.groups import FeatureGroup

#: What is asked of each key column: these values, or (None) anything.
type Filters = Mapping[str, list[str] | None]


class Asked(NamedTuple):
    """What a question says of keys; the columns in `optional` may be left open (None: all may).

    Where it is `of_one` series, each value is a single one.
    """

    values: Mapping[str, Any]
    optional: tuple[str, ...] | None = None
    of_one: bool = False

    def filters(self, group: FeatureGroup) -> Filters:
        """The values for the group's key. Raises `QueryError` when they are of another key, or lack one."""
        foreign = [name for name, value in self.values.items() if value is not None and name not in group.key]
        if foreign:
            raise QueryError(f"group {group.name} has no {foreign[0]}; its key is {', '.join(group.key)}")
        if self.optional is not None:
            lacking = [
                name for name in group.key if name not in self.optional and self.values.get(name) is None
            ]
            if lacking:
                raise QueryError(f"name a {' and a '.join(lacking)} for group {group.name}")
        return {name: self._filter(name) for name in group.key}

    def _filter(self, name: str) -> list[str] | None:
        value = self.values.get(name)
        if value is None:
            return None
        found = [single(name, value)] if self.of_one else several(name, value)
        if not found:
            raise QueryError(f"name at least one {name}")
        return found
