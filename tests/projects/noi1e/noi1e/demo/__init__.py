"""Deterministic demo data for the whole site."""
