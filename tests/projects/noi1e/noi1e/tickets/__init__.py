"""Tickets, what people say about them, and the time they spend on them."""
