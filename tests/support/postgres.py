"""A throw-away PostgreSQL server."""

import signal
from pathlib import Path

import psycopg2

from tests.support.throwaway import ThrowawayServer

PROGRAMS = Path("/usr/lib/postgresql")


class Postgres(ThrowawayServer):
    """`with Postgres() as server:`; options are those of `postgres`."""

    user = "postgres"
    superuser = "linod"
    engine = "postgresql"
    driver_error = psycopg2.Error
    stop_signal = signal.SIGINT  # the "fast" shutdown: doesn't wait until all clients have left
    own_id = "pg_backend_pid()"
    hang_up_after_a_second = ("-c", "idle_session_timeout=1s")

    def make_data_command(self):
        return [
            program("initdb"),
            f"--pgdata={self.directory}/data",
            f"--username={self.superuser}",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]

    def serve_command(self):
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.directory,
            "fsync": "off",
        }
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [program("postgres"), "-D", f"{self.directory}/data", *arguments, *self.options]

    def ask(self, statement, *values, database="postgres"):
        """Execute a statement as the superuser; return the rows, if it has any."""
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=self.superuser, dbname=database, connect_timeout=5
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def create_database(self, name):
        self.ask(f'CREATE DATABASE "{name}"')

    def connections(self, database):
        """The connections to a database: the id of each and the port of its client."""
        query = "SELECT pid, client_port FROM pg_stat_activity WHERE datname = %s"
        return dict(self.ask(query, database))

    def end_connections(self, database):
        """Hang up on all clients of a database, as an idle timeout would."""
        self.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", database)


def program(name):
    """The path of a server program; Debian has them apart from the others, by version."""
    versions = sorted(PROGRAMS.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if not versions:
        raise RuntimeError("There is no PostgreSQL server here: apt install postgresql")
    return str(versions[-1])
