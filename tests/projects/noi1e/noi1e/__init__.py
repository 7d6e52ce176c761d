"""A ticket site in the spirit of Lino Noi, with six background tasks."""
