"""The host's table, for programs of the manual."""

from tests.host.conftest import table

__all__ = ["table"]
