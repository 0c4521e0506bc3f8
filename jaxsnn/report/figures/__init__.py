"""Figures of results: every function writes PNG and SVG, and none of them computes a result.

This package imports matplotlib, so it is imported where something is drawn; `draw` chooses what
the results of an experiment have data for, `parts` holds what all figures share.
"""
