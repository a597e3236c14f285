"""Composes a configuration from the command line."""
