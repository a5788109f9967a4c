"""Helpers for the other folders, from which this one imports nothing."""
