"""Django: money goes from one account to another."""

import django
import pytest
from django.conf import settings
from django.db import connection, models, transaction

if not settings.configured:  # in a project: manage.py and settings.py; what is left out comes from PGHOST and its like
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres"}
    settings.configure(DATABASES={"default": database}, USE_TZ=True)
    django.setup()


class Account(models.Model):  # type: ignore[misc]
    balance = models.IntegerField()

    class Meta:
        app_label = __name__.rpartition(".")[2]
        db_table = "account"


def create_tables() -> None:
    with connection.schema_editor() as editor:
        editor.create_model(Account)
    Account.objects.bulk_create([Account(id=1, balance=50), Account(id=2, balance=50)])


def transfer(amount: int) -> None:
    with transaction.atomic():
        Account.objects.filter(id=1).update(balance=models.F("balance") - amount)
        Account.objects.filter(id=2).update(balance=models.F("balance") + amount)


# --- the test
@pytest.mark.crashlab(points="commits")
def test_no_money_is_lost(crash, monkeypatch):
    for name, value in crash.env.items():
        monkeypatch.setenv(name, value)
    connection.close()  # that of the test before
    create_tables()
    crash.invariant("all the money is there", "SELECT FROM account HAVING sum(balance) <> 100")
    with crash:
        transfer(10)
    crash.check()
