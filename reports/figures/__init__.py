"""Figures: functions from results to :class:`matplotlib.figure.Figure`, for pages, files and notebooks."""
