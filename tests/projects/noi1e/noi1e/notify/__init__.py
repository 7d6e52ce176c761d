"""Messages to users: shown on the site, and sent by mail to those who want that."""
