"""Large mappings that are replaced by changed ones: what has not changed is shared, and no step takes long, be it to build or to drop. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

_PARTS = 256


class Shards(Mapping[K, V], Generic[K, V]):
    """A mapping in many parts. A dict of 100,000 entries is moved when it grows and freed in one go, either of which takes longer than a turn."""

    __slots__ = ("parts",)

    def __init__(self, of: Mapping[K, V] | None = None) -> None:
        self.parts: tuple[dict[K, V], ...] = tuple({} for _ in range(_PARTS))
        for key, value in (of or {}).items():
            self[key] = value

    def __setitem__(self, key: K, value: V) -> None:
        """For whoever builds it."""
        self.parts[hash(key) % _PARTS][key] = value

    def __getitem__(self, key: K) -> V:
        return self.parts[hash(key) % _PARTS][key]

    @overload
    def get(self, key: K, default: None = None, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V | D, /) -> V | D: ...
    def get(self, key: K, default: V | D | None = None, /) -> V | D | None:
        """The value, or what stands for none. (Each call asks several times: what `Mapping` does instead costs twice as much.)"""
        return self.parts[hash(key) % _PARTS].get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self.parts[hash(key) % _PARTS]

    def __iter__(self) -> Iterator[K]:
        for part in self.parts:
            yield from part

    def __len__(self) -> int:
        return sum(map(len, self.parts))


class Layered(Mapping[K, V], Generic[K, V]):
    """What many versions share (`base`), and what is different in this one.

    A value is never None: that marks what is in the base and is gone. The base may not change any more.
    """

    __slots__ = ("_count", "_over", "base")

    def __init__(self, base: Mapping[K, V] | None = None) -> None:
        self.base: Mapping[K, V] = {} if base is None else base
        self._over: dict[K, V | None] = {}
        self._count = len(self.base)

    def changed(self, changes: Mapping[K, V | None]) -> Layered[K, V]:
        """The mapping with these values in place of what it has; None takes away. Costs as much as there is over the base."""
        new = Layered(self.base)
        new._over = {**self._over, **changes}
        new._count = self._count + sum(
            (value is not None) - (key in self) for key, value in changes.items()
        )
        return new

    @property
    def depth(self) -> int:
        """How much stands over the base. Where that is no longer little, a new base is cheaper."""
        return len(self._over)

    @overload
    def get(self, key: K, default: None = None, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V | D, /) -> V | D: ...
    def get(self, key: K, default: V | D | None = None, /) -> V | D | None:
        """The value, or what stands for none."""
        # (Mostly nothing is over the base, and the hash of a UUID is a function in Python.)
        if self._over and key in self._over:
            value = self._over[key]
            return default if value is None else value
        return self.base.get(key, default)

    def __getitem__(self, key: K) -> V:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        if self._over and key in self._over:
            return self._over[key] is not None
        return key in self.base

    def __iter__(self) -> Iterator[K]:
        for key in self.base:
            if key not in self._over:
                yield key
        for key, value in self._over.items():
            if value is not None:
                yield key

    def __len__(self) -> int:
        return self._count
