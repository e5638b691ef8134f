"""The cheapest way to part a graph in two: maximum flow by shortest levels (Dinic, 1970)."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import TypeAlias

Place: TypeAlias = Hashable
Edges: TypeAlias = dict[Place, Iterator[int]]
FOREVER = 1 << 60  # the capacity of what must not be cut


class Flow:
    """Places, and what it costs to cut between them."""

    def __init__(self) -> None:
        self._edges: dict[Place, list[int]] = {}
        self._head: list[Place] = []  # edge 2k and its opposite 2k + 1
        self._room: list[int] = []

    def connect(self, start: Place, end: Place, cost: int, back: int = 0) -> None:
        """It costs `cost` to have `start` with the source and `end` with the sink."""
        for place, head, room in ((start, end, cost), (end, start, back)):
            self._edges.setdefault(place, []).append(len(self._head))
            self._head.append(head)
            self._room.append(room)

    def sink_side(self, source: Place, sink: Place) -> set[Place]:
        """The places with the sink in the cheapest cut, as few as possible."""
        while sink in (levels := self._levels(source)):
            unused = {place: iter(edges) for place, edges in self._edges.items()}
            while path := self._path(source, sink, levels, unused):
                amount = min(self._room[e] for e in path)
                for edge in path:
                    self._room[edge] -= amount
                    self._room[edge ^ 1] += amount
        return self._reaching(sink)

    def _levels(self, source: Place) -> dict[Place, int]:
        """Steps from the source, along edges with room."""
        levels, waiting = {source: 0}, deque([source])
        while waiting:
            place = waiting.popleft()
            for edge in self._edges.get(place, ()):
                if self._room[edge] and self._head[edge] not in levels:
                    levels[self._head[edge]] = levels[place] + 1
                    waiting.append(self._head[edge])
        return levels

    def _path(
        self, source: Place, sink: Place, levels: dict[Place, int], unused: Edges
    ) -> list[int]:
        """Edges with room from source to sink, one level each; a dead end is tried once."""
        path: list[int] = []
        place = source
        while place != sink:
            edge = next((e for e in unused[place] if self._leads(e, place, levels)), None)
            if edge is not None:
                path.append(edge)
                place = self._head[edge]
            elif path:
                place = self._head[path.pop() ^ 1]
            else:
                return []
        return path

    def _leads(self, edge: int, place: Place, levels: dict[Place, int]) -> bool:
        return bool(self._room[edge]) and levels.get(self._head[edge]) == levels[place] + 1

    def _reaching(self, sink: Place) -> set[Place]:
        found, waiting = {sink}, [sink]
        while waiting:
            for edge in self._edges.get(waiting.pop(), ()):
                before = self._head[edge]
                if self._room[edge ^ 1] and before not in found:
                    found.add(before)
                    waiting.append(before)
        return found
