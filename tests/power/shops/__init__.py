"""What do all shops have in common? Their tables. Each is a small application that knows nothing of crashlab."""

TABLES = """
CREATE TABLE orders (id integer PRIMARY KEY);
CREATE SEQUENCE number;
CREATE TABLE bookings (id integer PRIMARY KEY, seat integer UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE views (page integer);
CREATE TABLE accounts (id integer PRIMARY KEY, balance integer NOT NULL);
INSERT INTO accounts VALUES (1, 50), (2, 50);
CREATE TABLE outbox (id integer PRIMARY KEY, sent boolean NOT NULL DEFAULT false);
INSERT INTO outbox VALUES (1);
CREATE TABLE mailbox (id integer PRIMARY KEY);
CREATE TABLE numbers AS SELECT 0 AS last;
"""
