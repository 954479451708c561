"""PgBouncer in transaction mode, between the application and the observer: all clients share one server connection."""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

INI = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 1
server_login_retry = 0.1
"""


@pytest.fixture
def pooled(crash) -> Iterator[str]:
    """The server's address behind the pooler, which lives on when the server dies."""
    folder = Path(tempfile.mkdtemp(prefix="crashlab-pgbouncer-", dir="/tmp"))
    folder.chmod(0o755)  # it gives up root's rights
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = free.getsockname()[1]
    there = urlsplit(crash.url)
    ini = folder / "pgbouncer.ini"
    ini.write_text(INI.format(host=there.hostname, port=there.port, user=there.username, listen=listen))
    someone_else = ["-u", "nobody"] if os.getuid() == 0 else []
    crash.process(["pgbouncer", *someone_else, ini], kill="never")
    yield f"postgresql://{there.username}@127.0.0.1:{listen}/postgres"
    shutil.rmtree(folder)


def connect(url: str) -> "psycopg.Connection":
    """Connect, once the pooler and its server are up; prepared statements are not for its transaction mode."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return psycopg.connect(url, prepare_threshold=None)
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class Views:
    def __init__(self, url: str) -> None:
        self.connection = connect(url)
        self.connection.execute("CREATE TABLE views (page integer)")
        self.connection.commit()

    def view(self, page: int) -> None:
        self.connection.execute("SET LOCAL synchronous_commit = off")
        self.connection.execute("INSERT INTO views VALUES (%s)", (page,))
        self.connection.commit()


class Orders:
    def __init__(self, url: str) -> None:
        self.connection = connect(url)
        self.connection.execute("CREATE TABLE orders (id integer PRIMARY KEY)")
        self.connection.commit()

    def order(self, number: int) -> int:
        self.connection.execute("INSERT INTO orders VALUES (%s)", (number,))
        self.connection.commit()
        return number


# --- the test
@pytest.mark.crashlab(profile="async-commit", points="statements")
def test_orders_survive(crash, pooled):
    views, orders = Views(pooled), Orders(pooled)
    views.view(1)
    crash.told(orders.order(1))
    with crash:
        for number in (2, 3):
            crash.told(orders.order(number))
    crash.check("SELECT id FROM orders")
    assert connect(pooled).execute("SELECT count(*) >= 1 FROM orders").fetchone() == (True,)
