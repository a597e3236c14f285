"""Train, sweep, compare, export and use image-restoration networks."""

__version__ = "0.1.0"
