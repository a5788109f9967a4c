"""Runs the trainings of a comparison and records their results."""
