"""A small site that has linod installed and doesn't use it."""
