"""A small key-value store that the gateway keeps for the plugin, shared by all its instances. It survives a
swap of the plugin and a reload, and ends with the gateway. In tests it is a dict.
"""

from __future__ import annotations

from typing import Any, Optional


class StateError(Exception):
    """A code of the contract: key-too-long, value-too-long, quota, not-a-counter."""


class _Memory:
    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def get(self, key: str) -> Optional[bytes]:
        return self.values.get(key)

    def set(self, key: str, value: bytes, _seconds: Optional[int]) -> None:
        self.values[key] = value

    def remove(self, key: str) -> None:
        self.values.pop(key, None)

    def increment(self, key: str, by: int, _seconds: Optional[int]) -> int:
        value = int(self.values.get(key, b"0")) + by
        self.values[key] = str(value).encode()
        return value


# The gateway's, in a component.
_host: Any = _Memory()


def _told(call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except Exception as error:
        # `componentize_py_types.Err` holds the code; outside of a component there is no such class.
        code = getattr(error, "value", None)
        if isinstance(code, str):
            raise StateError(code) from None
        raise


def get(key: str) -> Optional[bytes]:
    """The value of a key; None when absent or expired."""
    return _host.get(key)


def set(key: str, value: bytes, seconds: Optional[int] = None) -> None:
    """Sets a key; with ``seconds`` it expires after that time."""
    _told(_host.set, key, value, seconds)


def remove(key: str) -> None:
    """Removes a key; does nothing when it is absent."""
    _host.remove(key)


def increment(key: str, by: int = 1, seconds: Optional[int] = None) -> int:
    """Adds to a counter and returns its new value; ``seconds`` is the life of a new one."""
    return _told(_host.increment, key, by, seconds)
