"""Longest examples take longer on a busy machine; that is no failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("schedule", deadline=None)
settings.load_profile("schedule")
