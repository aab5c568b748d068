"""The tables of the questions. Held-out tables and their text values do not occur in training.

One table per line: its name, its text columns with some values, its integer columns with their range. A name such as
`@city` stands for a longer list of values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

_TRAIN_LISTS = {
    "@person": "Nora, Liam, Aisha, Tom, Elena, Ravi, Mia, Jonas, Grace, Omar",
    "@city": "Lisbon, Berlin, Oslo, Nairobi, Toronto, Madrid, Osaka, Dublin, Chicago, Prague, New York",
    "@country": "Portugal, Germany, Norway, Kenya, Canada, Spain, Japan, Ireland, South Africa",
    "@state": "open, closed, pending, active, cancelled, done",
}

_TRAIN = """
employees: name = @person; department = Sales, Marketing, Legal; city = @city; salary 20000 90000; age 18 65
books: title = Dune, Emma, Ulysses; author = Orwell, Austen; genre = crime; pages 80 900; year 1850 2024
customers: name = @person; city = @city; email = a@mail.com, tom@acme.org; points 0 5000; age 18 90
products: name = lamp, chair, mug; category = kitchen, garden; color = red, blue; price 1 900; stock 0 500
orders: customer = @person; status = @state; country = @country; total 5 2000; quantity 1 40
cars: brand = Toyota, Fiat; model = Corolla, Panda; color = black, red; price 2000 80000; year 1990 2024
students: name = @person; major = physics, history, law; country = @country; grade 1 100; age 17 40
movies: title = Alien, Amelie; director = Varda, Lang; genre = comedy, drama; rating 1 10; duration 60 240
cities: name = @city; country = @country; mayor = @person; population 1000 9000000; area 5 2000
flights: airline = KLM, Iberia; destination = @city; status = on time, delayed; price 40 1500; duration 1 16
songs: title = Hurt, Halo; artist = Prince, Adele; genre = rock, jazz, pop; plays 10 90000; length 60 600
teams: name = Lions, Eagles, Rovers; city = @city; coach = @person; wins 0 40; losses 0 40; points 0 120
houses: street = Oak Street; city = @city; owner = @person; price 50000 900000; rooms 1 12; size 30 400
tickets: subject = login, refund, crash; status = @state; agent = @person; priority 1 5; hours 1 80
patients: name = @person; doctor = Weber, Rossi, Kim; city = @city; age 1 99; visits 1 30; weight 20 140
restaurants: name = Luna, Oasis; cuisine = Italian, Thai; city = @city; rating 1 5; seats 10 200
projects: name = Apollo, Atlas, Nova; manager = @person; status = @state; budget 1000 500000; hours 10 3000
animals: name = Rex, Bella, Coco; species = dog, cat, parrot; color = brown, white; age 0 20; weight 1 80
invoices: customer = @person; currency = EUR, USD, GBP; status = paid, unpaid, late; amount 10 9000; tax 1 900
courses: title = Algebra; teacher = Weber, Rossi; level = beginner, advanced; credits 1 12; students 5 300
hotels: name = Astoria, Plaza, Central; city = @city; owner = @person; stars 1 5; rooms 10 400; price 40 700
machines: model = X200; factory = North, South; status = running, stopped; hours 1 9000; output 10 5000
recipes: title = Ramen; cuisine = Italian, Japanese; author = @person; calories 100 1500; minutes 5 180
sales: product = lamp, chair, mug; region = north, south, east; seller = @person; amount 10 9000; units 1 300
players: name = @person; team = Lions, Eagles; position = keeper; goals 0 60; height 150 215; age 16 42
phones: brand = Nokia, Apple; color = black, silver; system = Android, iOS; price 50 1500; memory 16 1024
"""

_HELD_OUT_LISTS = {
    "@person": "Clara, Isaac, Naomi, Pavel, Ruth, Tariq, Wendy",
    "@city": "Rome, Helsinki, Accra, Montreal, Seville, Kyoto, Leeds",
    "@country": "Italy, Finland, Ghana, Brazil, Poland",
}

_HELD_OUT = """
members: name = @person; club = Chess, Rowing, Tennis; city = @city; fee 10 400; age 18 80
paintings: title = Sunrise, Silence; painter = Monet, Klee; museum = Prado; year 1600 2000; value 1000 900000
bikes: brand = Trek, Bianchi, Cube; color = orange, grey; shop = Westside; price 100 6000; gears 1 27
concerts: band = Muse, Coldplay, Abba; city = @city; venue = Arena, Old Hall; price 10 200; visitors 100 90000
suppliers: name = Delta, Orbit, Zenith; country = @country; contact = @person; rating 1 10; deliveries 1 900
farms: owner = @person; country = @country; crop = wheat, maize, rice; cows 0 400; size 1 900
games: title = Tetris, Portal, Myst; studio = Valve, Cyan; genre = puzzle, racing; score 1 100; year 1980 2024
trucks: driver = @person; brand = Scania, Iveco; status = parked, loading; load 1 40; distance 100 900000
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its text columns (some values each) and its integer columns (smallest, largest value)."""

    name: str
    texts: dict[str, tuple[str, ...]]
    numbers: dict[str, tuple[int, int]]


@cache
def read_tables(*, held_out: bool) -> tuple[Table, ...]:
    """The tables of one split."""
    lists, lines = (_HELD_OUT_LISTS, _HELD_OUT) if held_out else (_TRAIN_LISTS, _TRAIN)
    return tuple(_read_table(line, lists) for line in lines.strip().splitlines())


def _read_table(line: str, lists: dict[str, str]) -> Table:
    name, _, rest = line.partition(": ")
    texts: dict[str, tuple[str, ...]] = {}
    numbers: dict[str, tuple[int, int]] = {}
    for column in rest.split("; "):
        if " = " in column:
            column_name, _, values = column.partition(" = ")
            texts[column_name] = tuple(lists.get(values, values).split(", "))
        else:
            column_name, low, high = column.split(" ")
            numbers[column_name] = (int(low), int(high))
    return Table(name, texts, numbers)
