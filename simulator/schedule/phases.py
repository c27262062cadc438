"""Writes a device's order phase by phase, in the papers' notation."""

from __future__ import annotations

from collections import deque

from simulator.schedule.actions import Action, Kind, Order


class Phases:
    """The order of one device with numbered chunks; every chunk takes its microbatches in turn, from 0.

    Args:
        chunks: (stage, direction) of each chunk.
    """

    def __init__(self, *chunks: tuple[int, int]) -> None:
        self.order: Order = []
        self._chunks = chunks
        self._forwards = [0] * len(chunks)
        self._backwards = [0] * len(chunks)
        self._awaiting_weights: deque[Action] = deque()

    def run(self, count: int, phase: str) -> None:
        """``count`` times the words of ``phase``.

        A word is a kind and a chunk, as in ``F0 I0 F1``; ``F0&B1`` is a pair; ``W1`` is the oldest weight
        gradient that chunk 1 owes, ``W`` the oldest of any chunk.
        """
        words = phase.split()
        for _ in range(count):
            self.order.extend(self._action(word) for word in words)

    def _action(self, word: str) -> Action:
        if "&" in word:
            forward, backward = word.split("&")
            return self._action(forward)._replace(partner=self._action(backward))
        kind, chunk = Kind[word[0]], word[1:]
        if kind == Kind.W:
            return self._weight_gradient(int(chunk) if chunk else None)
        c = int(chunk)
        stage, direction = self._chunks[c]
        taken = self._forwards if kind == Kind.F else self._backwards
        action = Action(kind, stage, taken[c], direction)
        taken[c] += 1
        if kind == Kind.I:
            self._awaiting_weights.append(action._replace(kind=Kind.W))
        return action

    def _weight_gradient(self, chunk: int | None) -> Action:
        if chunk is None:
            return self._awaiting_weights.popleft()
        oldest = next(a for a in self._awaiting_weights if (a.stage, a.direction) == self._chunks[chunk])
        self._awaiting_weights.remove(oldest)
        return oldest
