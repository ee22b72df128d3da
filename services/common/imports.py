"""Imports of libraries without the parts of them that no service uses.

Quix Streams and TA-Lib import at their start what serves other uses than ours: a second of CPU time and 25 MB
of memory in every service, pandas and Polars (four more seconds) where a data scientist has them.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn


@contextmanager
def absent(*names: str) -> Iterator[None]:
    """Meanwhile the modules `names` look as if they were not installed, unless they are imported already."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        # Python's own mark: an import of it raises ModuleNotFoundError.
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def left_out(*names: str) -> Iterator[None]:
    """Meanwhile an import of the modules `names`, or of one inside them, gives a stand-in.

    Every name of a stand-in is a class whose objects raise `ImportError` when they are used. Afterwards all
    is as it was: who imports such a module then gets the real one. What is imported already stays.
    """
    finder = _StandIns(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in finder.made:
            del sys.modules[name]
            package, _, child = name.rpartition(".")
            if package in sys.modules:
                vars(sys.modules[package]).pop(child, None)


class _StandIn(Exception):  # noqa: N818 - some stand for exceptions, and none is raised.
    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __getattr__(self, name: str) -> NoReturn:
        raise ImportError(
            f"{type(self).__module__}.{type(self).__name__} was left out by services.common.imports; "
            "import its module before the services' to have it"
        )


class _StandIns(MetaPathFinder, Loader):
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self.made: list[str] = []

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if any(name == left or name.startswith(f"{left}.") for left in self._names):
            return ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        self.made.append(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        def made(name: str) -> type[_StandIn]:
            if name.startswith("__"):
                raise AttributeError(name)
            kind = type(name, (_StandIn,), {"__module__": module.__name__})
            setattr(module, name, kind)
            return kind

        module.__getattr__ = made  # type: ignore[method-assign]
