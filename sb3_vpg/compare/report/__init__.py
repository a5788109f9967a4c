"""Reporting a comparison."""
