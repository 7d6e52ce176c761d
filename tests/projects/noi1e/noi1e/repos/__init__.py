"""The commits of local git repositories, read into the database every hour."""
