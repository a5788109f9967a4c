"""Writes the report of a comparison: statistics, tables, figures and pages."""
