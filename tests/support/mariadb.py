"""A throw-away MariaDB server."""

import shutil

import MySQLdb

from tests.support.throwaway import ThrowawayServer


class MariaDB(ThrowawayServer):
    """`with MariaDB() as server:`; options are those of `mariadbd`."""

    user = "mysql"
    superuser = "root"
    engine = "mysql"
    driver_error = MySQLdb.Error
    own_id = "connection_id()"
    hang_up_after_a_second = ("--wait-timeout=1",)

    def make_data_command(self):
        return [
            program("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={self.directory}/data",
            "--auth-root-authentication-method=normal",
            f"--tmpdir={self.directory}",
            "--skip-test-db",
            "--skip-name-resolve",
        ]

    def serve_command(self):
        return [
            program("mariadbd"),
            "--no-defaults",
            f"--datadir={self.directory}/data",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            f"--socket={self.directory}/socket",
            f"--pid-file={self.directory}/pid",
            f"--tmpdir={self.directory}",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=16M",
            *self.options,
        ]

    def ask(self, statement, *values, database=""):
        """Execute a statement as the superuser; return the rows, if it has any."""
        connection = MySQLdb.connect(
            host="127.0.0.1", port=self.port, user=self.superuser, database=database, connect_timeout=5
        )
        try:
            connection.autocommit(True)
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def create_database(self, name):
        self.ask(f"CREATE DATABASE `{name}`")

    def connections(self, database):
        """The connections to a database: the id of each and the port of its client."""
        query = "SELECT id, host FROM information_schema.processlist WHERE db = %s"
        return {id: int(host.rpartition(":")[2]) for id, host in self.ask(query, database)}

    def end_connections(self, database):
        """Hang up on all clients of a database, as an idle timeout would."""
        for id in self.connections(database):
            self.ask(f"KILL CONNECTION {id}")


def program(name):
    path = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if path is None:
        raise RuntimeError("There is no MariaDB server here: apt install mariadb-server")
    return path
