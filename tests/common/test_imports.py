"""Services start without what they do not use, and nobody else misses it."""

import subprocess
import sys

import pytest

from services.common.imports import absent, left_out
from tests.docs.test_docs import SERVICES

#: Imported by Quix Streams or TA-Lib, and used by no service of ours.
LEFT_OUT = {"authlib", "httpx", "jsonpath_ng", "jsonschema", "joserfc", "pandas", "polars", "rich"}


def printed(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_without_the_libraries_it_does_not_use(service: str) -> None:
    found = printed(f"import sys, services.{service}.main; print(*sys.modules)")
    assert not LEFT_OUT & {name.partition(".")[0] for name in found.split()}


def test_only_quix_streams_is_given_the_stand_ins() -> None:
    """A library that Quix brings in must not come to hold one by accident."""
    code = """
import sys
import services.common.quix
from services.common.imports import _StandIn

for name, module in list(sys.modules.items()):
    for value in list(vars(module).values()):
        if isinstance(value, type) and issubclass(value, _StandIn) and value is not _StandIn:
            print(name)
"""
    holders = printed(code).split()
    assert holders
    assert {name for name in holders if not name.startswith("quixstreams.")} == set()


def test_who_imports_a_left_out_library_afterwards_gets_the_real_one() -> None:
    code = """
import services.common.quix, services.ta.main
import confluent_kafka.schema_registry, httpx, pandas, polars, rich.console
client = confluent_kafka.schema_registry.SchemaRegistryClient({"url": "http://127.0.0.1:1"})
print(client.__enter__() is client, httpx.URL("http://a/b").path)
print(pandas.Series([1]).sum(), polars.Series([2]).sum())
"""
    assert printed(code) == "True /b\n1 2"


def test_who_imported_it_before_keeps_it_and_so_does_quix_streams() -> None:
    code = """
import rich.console
import services.common.quix, quixstreams.utils.printing as printing
print(printing.Console is rich.console.Console)
"""
    assert printed(code) == "True"


def test_a_stand_in_says_what_to_do_when_it_is_used() -> None:
    with left_out("no_such_library"):
        from no_such_library.part import Client  # type: ignore[import-not-found]
    client = Client("somewhere", retries=3)
    with pytest.raises(
        ImportError, match=r"no_such_library.part.Client was left out .* import its module before"
    ):
        client.get()
    assert not [name for name in sys.modules if name.startswith("no_such_library")]


def test_an_absent_library_looks_as_if_it_were_not_installed_and_is_there_again_afterwards() -> None:
    with absent("antigravity", "sys"):
        import sys as kept

        with pytest.raises(ModuleNotFoundError) as missing:
            import antigravity  # noqa: F401
    assert kept is sys
    assert missing.value.name == "antigravity"
    assert "antigravity" not in sys.modules
