"""The version, of the program and of the distribution."""

__version__ = "0.1.0"
