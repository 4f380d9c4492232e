"""Grids of systems as graphs of commands."""
