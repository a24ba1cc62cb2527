"""The package's version, recorded in every archive."""

__version__ = "0.1.0"
