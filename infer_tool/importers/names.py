"""Names that are given once."""

from __future__ import annotations


class Names:
    """Hands each name out once; the next who asks gets a number added."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}

    def claim(self, base: str) -> str:
        """The name itself, or with the first number that makes it new."""
        name = base
        while name in self._taken:
            self._numbers[base] = self._numbers.get(base, 0) + 1
            name = f"{base}_{self._numbers[base]}"
        self._taken.add(name)
        return name
