"""The version of this package. The build reads it without importing the rest."""

__version__ = "0.1.0"
