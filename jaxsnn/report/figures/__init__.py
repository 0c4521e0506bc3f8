"""Figures of results: every function writes PNG and SVG, and none of them computes a result.

This package imports matplotlib, so it is imported where something is drawn; ``draw`` chooses what
the results of an experiment have data for, ``parts`` holds what all figures share.
"""

from jaxsnn.report.figures.comparison import compare
from jaxsnn.report.figures.rasters import membranes, raster

__all__ = ["compare", "membranes", "raster"]
