"""PyTorch's caching allocator: rounding, splitting, merging, reuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.memory.allocator import MIB, CachingAllocator


@pytest.mark.parametrize(
    ("size", "allocated", "reserved"),
    [
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (9 * MIB, 9 * MIB, 20 * MIB),
        (11 * MIB, 12 * MIB, 12 * MIB),  # what is left is too little to split off
        (100 * MIB, 100 * MIB, 100 * MIB),
    ],
)
def test_segments_are_rounded(size: int, allocated: int, reserved: int) -> None:
    allocator = CachingAllocator()
    allocator.allocate("a", size)
    assert (allocator.allocated, allocator.reserved) == (allocated, reserved)


def test_a_freed_block_serves_a_smaller_tensor_and_the_rest_another() -> None:
    allocator = CachingAllocator()
    allocator.run([("a", 100 * MIB), ("a", 0), ("b", 60 * MIB), ("c", 40 * MIB)])
    assert allocator.reserved == 100 * MIB


def test_pieces_of_two_segments_do_not_make_a_larger_one() -> None:
    allocator = CachingAllocator()
    allocator.run([("a", 50 * MIB), ("b", 50 * MIB), ("a", 0), ("b", 0), ("c", 80 * MIB)])
    assert allocator.reserved == 180 * MIB


def test_an_expandable_segment_joins_them() -> None:
    allocator = CachingAllocator(expandable=True)
    allocator.run([("a", 50 * MIB), ("b", 50 * MIB), ("a", 0), ("b", 0), ("c", 80 * MIB)])
    assert allocator.reserved <= 120 * MIB


def test_an_expandable_segment_grows_from_its_free_end() -> None:
    allocator = CachingAllocator(expandable=True)
    allocator.run([("a", 40 * MIB), ("b", 40 * MIB), ("b", 0), ("c", 60 * MIB)])
    assert allocator.reserved == 100 * MIB


@given(
    sizes=st.lists(st.integers(1, 64 * MIB), min_size=1, max_size=40),
    order=st.randoms(use_true_random=False),
    expandable=st.booleans(),
)
def test_reserved_holds_what_is_allocated_and_all_of_it_can_be_freed(
    sizes: list[int], order: object, expandable: bool
) -> None:
    allocator, alive = CachingAllocator(expandable=expandable), []
    for number, size in enumerate(sizes):
        allocator.allocate(str(number), size)
        alive.append(str(number))
        assert sum(sizes[: number + 1]) * (number == 0) <= allocator.allocated <= allocator.reserved
        if order.random() < 0.4:  # type: ignore[attr-defined]
            allocator.release(alive.pop(order.randrange(len(alive))))  # type: ignore[attr-defined]
    for name in alive:
        allocator.release(name)
    reserved = allocator.reserved
    assert allocator.allocated == 0
    allocator.allocate("again", max(sizes))
    assert allocator.reserved == reserved  # the largest fits where it was


def test_of_equal_free_blocks_the_lowest_address_is_taken() -> None:
    """Whatever objects Python made them of: the same tensors always reserve the same bytes."""
    allocator = CachingAllocator()
    for name in ("first", "second", "third"):
        allocator.allocate(name, 32 * MIB)
    for name in ("third", "first"):
        allocator.release(name)
    allocator.allocate("again", 32 * MIB)
    assert allocator._tensors["again"].address < allocator._tensors["second"].address
