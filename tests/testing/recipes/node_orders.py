"""node's pg: an application that is no Python; it tells its user by a line in a file."""

import psycopg
import pytest

SHOP = """
const fs = require("fs");
const { Client } = require("pg");

async function main() {
  const client = new Client({ connectionString: process.env.DATABASE_URL });
  await client.connect();
  await client.query("BEGIN");
  await client.query("INSERT INTO orders VALUES ($1)", [1]);
  await client.query("COMMIT");
  fs.appendFileSync(process.env.CRASHLAB_TOLD, "1\\n");
  await client.end();
}
main();
"""


# --- the test
@pytest.mark.crashlab(points="commits")
def test_orders_survive(crash):
    psycopg.connect(crash.url, autocommit=True).execute("CREATE TABLE orders (id integer PRIMARY KEY)")
    with crash:
        crash.process(["node", "-e", SHOP], restart=False).wait()
    crash.check("SELECT id FROM orders")
