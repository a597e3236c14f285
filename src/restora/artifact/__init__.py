"""Model folders: made by `export`, used by `restorer`. Nothing here imports lightning or hydra."""
