"""The people who work on this site."""
