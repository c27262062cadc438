"""Figures: functions from results to :class:`matplotlib.figure.Figure`, for pages, files and notebooks.

Nothing else in this package's house imports matplotlib at the top of a module.
"""
