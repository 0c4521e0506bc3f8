"""Somebody's trained network as a certified spiking one: ``python -m jaxsnn convert``."""
