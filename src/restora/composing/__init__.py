"""How a command line becomes a configuration."""
