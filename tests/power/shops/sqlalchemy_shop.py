"""A shop on SQLAlchemy 2, its core and its sessions. Right in all that it does, see `planted_bugs.py`."""

from collections.abc import Callable

from sqlalchemy import create_engine, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.power.shops import TABLES


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


class Booking(Base):
    __tablename__ = "bookings"
    id: Mapped[int] = mapped_column(primary_key=True)
    seat: Mapped[int]


class Account(Base):
    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int]


class Outbox(Base):
    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(primary_key=True)
    sent: Mapped[bool]


class Shop:
    def __init__(self, url: str) -> None:
        self.engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        self.last = 0
        with self.engine.begin() as connection:
            connection.exec_driver_sql(TABLES)

    def order(self, number: int, tell: Callable[[int], object]) -> None:
        with Session(self.engine) as session:
            session.add(Order(id=number))
            session.flush()  # the row has its key now
            session.commit()
            tell(number)

    def book(self, number: int, seat: int) -> bool:
        try:
            with Session(self.engine) as session, session.begin():
                session.add(Booking(id=number, seat=seat))
        except IntegrityError:
            return False
        return True

    def view(self, page: int) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            connection.execute(text("INSERT INTO views VALUES (:page)"), {"page": page})

    def transfer(self, amount: int) -> None:
        with Session(self.engine) as session:
            session.execute(update(Account).where(Account.id == 1).values(balance=Account.balance - amount))
            # both, or none
            session.execute(update(Account).where(Account.id == 2).values(balance=Account.balance + amount))
            session.commit()

    def send_all(self) -> None:
        with Session(self.engine) as session:
            unsent = session.scalars(select(Outbox.id).where(~Outbox.sent).order_by(Outbox.id)).all()
        for number in unsent:
            self.send(number)
            self.mark(number)

    def send(self, number: int) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("INSERT INTO mailbox VALUES (:id) ON CONFLICT DO NOTHING"), {"id": number})

    def mark(self, number: int) -> None:
        with Session(self.engine) as session, session.begin():
            session.execute(update(Outbox).where(Outbox.id == number).values(sent=True))

    def take(self) -> int:
        self.last += 1
        self.save()
        return self.last

    def save(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE numbers SET last = :last"), {"last": self.last})
