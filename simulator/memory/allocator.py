"""PyTorch's caching allocator: what it reserves from the device for a sequence of tensors.

Rules and constants are those of ``c10/cuda/CUDACachingAllocator.cpp``: blocks are rounded to 512 bytes; a
tensor takes the smallest cached block that holds it (of equal ones that at the lowest address), which is
split where enough is left; otherwise a new segment is reserved. Freed neighbours within a segment merge;
nothing is given back to the device. With expandable segments there is one segment per pool, which grows at
its end.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

MIB = 2**20
MIN_BLOCK = 512
SMALL_SIZE = MIB  # tensors up to this come from segments of their own pool
SMALL_SEGMENT = 2 * MIB
LARGE_SEGMENT = 20 * MIB  # for tensors below MIN_LARGE
MIN_LARGE = 10 * MIB
ROUND_LARGE = 2 * MIB  # larger ones get a segment of their own, rounded


@dataclass(slots=True, eq=False)
class _Block:
    size: int
    small: bool
    address: int  # segments follow each other
    free: bool = False
    before: _Block | None = None
    after: _Block | None = None


@dataclass(slots=True)
class CachingAllocator:
    """Bytes allocated and reserved, now and at most."""

    expandable: bool = False
    allocated: int = 0
    reserved: int = 0
    peak_allocated: int = 0
    _tensors: dict[str, _Block] = field(default_factory=dict)
    _free: dict[bool, list[tuple[int, int, _Block]]] = field(default_factory=lambda: {True: [], False: []})
    _tails: dict[bool, _Block] = field(default_factory=dict)  # ends of expandable segments

    def run(self, events: Iterable[tuple[str, float]]) -> None:
        """Tensors that come, with their bytes, and go (0)."""
        for name, size in events:
            if size:
                self.allocate(name, size)
            else:
                self.release(name)

    def allocate(self, name: str, size_bytes: float) -> None:
        """A tensor comes."""
        size = -(-max(1, round(size_bytes)) // MIN_BLOCK) * MIN_BLOCK
        block = self._take(size, small=size <= SMALL_SIZE) or self._reserve(size, small=size <= SMALL_SIZE)
        self._split(block, size)
        self._tensors[name] = block
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)

    def release(self, name: str) -> None:
        """A tensor goes: its block is cached, together with free neighbours."""
        block = self._tensors.pop(name)
        self.allocated -= block.size
        for other in (block.before, block.after):
            if other is not None and other.free:
                self._uncache(other)
                self._join(block, other)
        self._cache(block)

    def _take(self, size: int, *, small: bool) -> _Block | None:
        free = self._free[small]
        index = bisect_left(free, (size, 0))
        if index == len(free):
            return None
        block = free.pop(index)[2]
        block.free = False
        return block

    def _reserve(self, size: int, *, small: bool) -> _Block:
        if self.expandable:
            return self._extend(size, small=small)
        if small:
            segment = SMALL_SEGMENT
        elif size < MIN_LARGE:
            segment = LARGE_SEGMENT
        else:
            segment = -(-size // ROUND_LARGE) * ROUND_LARGE
        self.reserved += segment
        return _Block(segment, small, self.reserved - segment)

    def _extend(self, size: int, *, small: bool) -> _Block:
        """The pool's segment grows, from its last block on where that is free."""
        step = SMALL_SEGMENT if small else LARGE_SEGMENT
        tail = self._tails.get(small)
        if tail is not None and tail.free:
            self._uncache(tail)
        else:
            end = 0 if tail is None else tail.address + tail.size
            tail = _Block(0, small, end, before=tail)
            if tail.before is not None:
                tail.before.after = tail
        more = -(-(size - tail.size) // step) * step
        self.reserved += more
        tail.size += more
        self._tails[small] = tail
        return tail

    def _split(self, block: _Block, size: int) -> None:
        rest = block.size - size
        if rest < MIN_BLOCK if block.small else rest <= SMALL_SIZE:
            return
        other = _Block(rest, block.small, block.address + size, before=block, after=block.after)
        if block.after is not None:
            block.after.before = other
        block.after, block.size = other, size
        if self._tails.get(block.small) is block:
            self._tails[block.small] = other
        self._cache(other)

    def _join(self, block: _Block, other: _Block) -> None:
        """Takes a neighbour in."""
        block.size += other.size
        if other is block.before:
            block.before, block.address = other.before, other.address
            if other.before is not None:
                other.before.after = block
        else:
            block.after = other.after
            if other.after is not None:
                other.after.before = block
        if self._tails.get(block.small) is other:
            self._tails[block.small] = block

    def _cache(self, block: _Block) -> None:
        block.free = True
        insort(self._free[block.small], (block.size, block.address, block))

    def _uncache(self, block: _Block) -> None:
        free = self._free[block.small]
        del free[bisect_left(free, (block.size, block.address))]
        block.free = False
