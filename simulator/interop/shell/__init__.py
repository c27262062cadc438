"""Enough of a shell to follow a launch script without running it."""
