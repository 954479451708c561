"""A shop on Django, its models and its transactions. Right in all that it does, see `planted_bugs.py`."""

from collections.abc import Callable

import django
from django.conf import settings
from django.db import IntegrityError, connection, models, transaction

from tests.power.shops import TABLES

if not settings.configured:  # in a project: manage.py and settings.py; what is left out comes from PGHOST and its like
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres"}
    settings.configure(DATABASES={"default": database}, USE_TZ=True)
    django.setup()

LABEL = __name__.rpartition(".")[2]


class Order(models.Model):  # type: ignore[misc]
    class Meta:
        app_label, db_table, managed = LABEL, "orders", False

    id = models.IntegerField(primary_key=True)


class Booking(models.Model):  # type: ignore[misc]
    class Meta:
        app_label, db_table, managed = LABEL, "bookings", False

    id = models.IntegerField(primary_key=True)
    seat = models.IntegerField()


class Account(models.Model):  # type: ignore[misc]
    class Meta:
        app_label, db_table, managed = LABEL, "accounts", False

    balance = models.IntegerField()


class Outbox(models.Model):  # type: ignore[misc]
    class Meta:
        app_label, db_table, managed = LABEL, "outbox", False

    sent = models.BooleanField()


class Mailbox(models.Model):  # type: ignore[misc]
    class Meta:
        app_label, db_table, managed = LABEL, "mailbox", False


class Shop:
    def __init__(self) -> None:
        self.last = 0
        with connection.cursor() as cursor:
            cursor.execute(TABLES)

    def order(self, number: int, tell: Callable[[int], object]) -> None:
        with transaction.atomic():
            Order.objects.create(id=number)
            transaction.on_commit(lambda: tell(number))

    def book(self, number: int, seat: int) -> bool:
        try:
            with transaction.atomic():
                Booking.objects.create(id=number, seat=seat)
        except IntegrityError:
            return False
        return True

    def view(self, page: int) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")
            cursor.execute("INSERT INTO views VALUES (%s)", [page])

    def transfer(self, amount: int) -> None:
        with transaction.atomic():  # both, or none
            Account.objects.filter(id=1).update(balance=models.F("balance") - amount)
            Account.objects.filter(id=2).update(balance=models.F("balance") + amount)

    def send_all(self) -> None:
        for number in list(Outbox.objects.filter(sent=False).order_by("id").values_list("id", flat=True)):
            self.send(number)
            self.mark(number)

    def send(self, number: int) -> None:
        Mailbox.objects.get_or_create(id=number)

    def mark(self, number: int) -> None:
        Outbox.objects.filter(id=number).update(sent=True)

    def take(self) -> int:
        self.last += 1
        self.save()
        return self.last

    def save(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE numbers SET last = %s", [self.last])
