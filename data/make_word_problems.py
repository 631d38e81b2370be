"""Make data/word_problems.jsonl, a small set of grade-school word problems with whole-number answers.

Every sentence and every range of numbers is written in this file. The output is one JSON object a line with id,
problem, answer, num_steps and template, the same bytes on every run.

    python data/make_word_problems.py            write the file
    python data/make_word_problems.py --check    exit 1 if the file differs from what would be written

A template is a function that takes a random generator and returns (problem text, answer, number of steps), where a
step is one arithmetic operation of the plain solution (rounding up to a whole number is not counted as one).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SEED = 20240
DRAWS_PER_TEMPLATE = 5
OUT = Path(__file__).resolve().parent / "word_problems.jsonl"

Draw = tuple[str, int, int]
Template = Callable[[random.Random], Draw]

TEMPLATES: list[Template] = []


class Person(NamedTuple):
    """A name with the pronouns that go with it."""

    name: str
    they: str
    their: str

    @property
    def opening(self) -> str:
        """The pronoun as it opens a sentence."""
        return self.they.capitalize()


WOMEN = """
    Amara Ingrid Mei Fatima Lucia Priya Yuki Leilani Zofia Noor Chiara Thandiwe Siobhan Anahit Soraya Camila Hoa Aroha
"""
MEN = """
    Kwame Diego Hiroshi Omar Lars Arjun Mateo Tomasz Minjun Tane Emre Babajide Rafael Nikolai Elias Tevita Dawit Cormac
"""
PEOPLE = [Person(n, "she", "her") for n in WOMEN.split()] + [Person(n, "he", "his") for n in MEN.split()]
MONEY = ("dollar", "euro", "pound")


def template(function: Template) -> Template:
    """Register a template; its slug is the name of the function."""
    TEMPLATES.append(function)
    return function


def slug(function: Template) -> str:
    """The short name of a template, as it stands in the file."""
    return function.__name__.replace("_", "-")


def count(n: int, noun: str, plural: str = "") -> str:
    """'1 apple', '3 apples'; the plural is the noun with an s unless it is given."""
    return f"{n} {noun if n == 1 else plural or noun + 's'}"


def exact(a: int, b: int) -> int:
    """a / b, which must come out whole."""
    quotient, rest = divmod(a, b)
    if rest:
        raise ValueError(f"{a} is not a multiple of {b}")
    return quotient


def two_people(rng: random.Random) -> tuple[Person, Person]:
    """Two different people."""
    first = rng.choice(PEOPLE)
    return first, rng.choice([p for p in PEOPLE if p != first])


# ---- one step ----


@template
def storm_trees(rng: random.Random) -> Draw:
    tree = rng.choice(["cherry", "olive", "plum", "walnut", "almond", "pear"])
    total, fallen = rng.randint(60, 240), rng.randint(7, 48)
    question = rng.choice([f"How many {tree} trees are still standing?", "How many of the trees are left standing?"])
    text = f"An orchard had {total} {tree} trees. A storm blew down {fallen} of them. {question}"
    return text, total - fallen, 1


@template
def market_crates(rng: random.Random) -> Draw:
    who, fruit = rng.choice(PEOPLE), rng.choice(["mangoes", "lemons", "melons", "peaches", "papayas"])
    crates, each = rng.randint(4, 15), rng.randint(12, 36)
    text = f"{who.name} unloads {crates} crates at the morning market. Every crate holds {each} {fruit}. " + rng.choice(
        [f"How many {fruit} is that altogether?", f"How many {fruit} does {who.name} unload in all?"]
    )
    return text, crates * each, 1


@template
def bead_strings(rng: random.Random) -> Draw:
    who, colour = rng.choice(PEOPLE), rng.choice(["glass", "wooden", "clay", "silver"])
    strings, each = rng.randint(4, 12), rng.randint(8, 25)
    text = (
        f"{who.name} threads {strings * each} {colour} beads onto {strings} strings, with the same number of beads "
        f"on every string. "
        + rng.choice(["How many beads are on each string?", "How many beads does one string hold?"])
    )
    return text, exact(strings * each, strings), 1


@template
def tower_steps(rng: random.Random) -> Draw:
    (a, b), tower = two_people(rng), rng.choice(["lighthouse", "bell tower", "castle tower", "lookout tower"])
    low, more = rng.randint(40, 130), rng.randint(15, 70)
    text = (
        f"Inside a {tower}, {a.name} has climbed {low} steps. {b.name} has climbed {more} more steps than {a.name}. "
        f"How many steps has {b.name} climbed?"
    )
    return text, low + more, 1


# ---- two steps ----


@template
def late_books(rng: random.Random) -> Draw:
    who, fee = rng.choice(PEOPLE), rng.choice([5, 10, 15, 20])
    first, second = rng.randint(2, 6), rng.randint(7, 14)
    text = (
        f"The village library charges {fee} cents for each day that a book is late. {who.name} brings back one book "
        f"{first} days late and another book {second} days late. "
        + rng.choice([f"How many cents must {who.they} pay in total?", f"What is {who.their} total fee in cents?"])
    )
    return text, (first + second) * fee, 2


@template
def museum_change(rng: random.Random) -> Draw:
    who, money = rng.choice(PEOPLE), rng.choice(MONEY)
    tickets, price = rng.randint(3, 6), rng.randint(6, 14)
    note = 50 if tickets * price < 50 else 100
    place = rng.choice(["science museum", "botanical garden", "puppet theatre", "planetarium"])
    question = rng.choice(
        [f"How many {money}s does {who.they} get back?", f"How much change, in {money}s, does {who.they} receive?"]
    )
    text = (
        f"{who.name} buys {tickets} tickets for the {place}. Each ticket costs {count(price, money)}, and {who.name} "
        f"pays with a single {note}-{money} note. {question}"
    )
    return text, note - tickets * price, 2


@template
def train_moving(rng: random.Random) -> Draw:
    hour, minute, waits = rng.randint(7, 10), rng.choice([5, 10, 15, 20, 25, 40]), rng.randint(6, 18)
    trip = rng.randint(14, 32) * 5
    end = hour * 60 + minute + trip
    text = (
        f"A train leaves the coast at {hour}:{minute:02d} and reaches the mountains at {end // 60}:{end % 60:02d} on "
        f"the same day (24-hour clock). On the way it stands still in stations for {waits} minutes altogether. For "
        "how many minutes is the train moving?"
    )
    return text, trip - waits, 2


@template
def relative_age(rng: random.Random) -> Draw:
    who, parent = rng.choice(PEOPLE), rng.choice(["mother", "father", "aunt", "uncle"])
    at_birth, now, later = rng.randint(23, 38), rng.randint(6, 12), rng.randint(3, 15)
    text = (
        f"On the day {who.name} was born, {who.their} {parent} turned {at_birth}. Today {who.name} turns {now}. "
        f"How old will {who.their} {parent} be {later} years from today?"
    )
    return text, at_birth + now + later, 2


@template
def fence_painters(rng: random.Random) -> Draw:
    a, b = two_people(rng)
    panels, minutes = rng.randint(5, 12) * 2, rng.randint(6, 15)
    text = (
        f"A garden fence has {panels} panels, and painting one panel takes one person {minutes} minutes. {a.name} and "
        f"{b.name} start together, and each of them paints half of the panels. "
        + rng.choice(["After how many minutes is the whole fence painted?", "How many minutes does the job take them?"])
    )
    return text, exact(panels, 2) * minutes, 2


@template
def filling_tank(rng: random.Random) -> Draw:
    rate, minutes, already = rng.randint(6, 18), rng.randint(8, 25), rng.randint(3, 12) * 10
    place = rng.choice(["A rain tank", "A fish pond", "A horse trough", "A paddling pool"])
    text = (
        f"{place} can hold {rate * minutes + already} litres of water. It already holds {already} litres when a hose "
        f"is turned on. The hose adds {rate} litres every minute. "
        + rng.choice(["After how many minutes is it full?", "How many minutes does it take to fill up?"])
    )
    return text, exact(rate * minutes, rate), 2


@template
def minibus_trip(rng: random.Random) -> Draw:
    seats, pupils, teachers = rng.choice([8, 9, 12, 14, 16]), rng.randint(31, 85), rng.randint(3, 6)
    goal = rng.choice(["the aquarium", "a dairy farm", "a glass factory", "the old harbour"])
    text = (
        f"On a school trip, {pupils} pupils and {teachers} teachers are going to {goal} in minibuses. Each minibus "
        f"can take {seats} of them. What is the smallest number of minibuses that can take everyone in one trip?"
    )
    return text, -(-(pupils + teachers) // seats), 2


@template
def battery_left(rng: random.Random) -> Draw:
    who, device = rng.choice(PEOPLE), rng.choice(["tablet", "phone", "laptop"])
    hours, loss = rng.randint(2, 5), rng.randint(6, 13)
    start = rng.randint(hours * loss + 8, 98)
    text = (
        f"The battery meter of {who.name}'s {device} reads {start} percent. For each hour of video, the reading drops "
        f"by {loss} percentage points. What is the reading, in percent, after {who.name} watches {hours} hours of "
        "video?"
    )
    return text, start - hours * loss, 2


@template
def saving_up(rng: random.Random) -> Draw:
    who, money = rng.choice(PEOPLE), rng.choice(MONEY)
    thing = rng.choice(["a skateboard", "a drum", "a telescope", "a scooter", "a tent", "a guitar"])
    weekly, weeks, has = rng.randint(4, 12), rng.randint(5, 14), rng.randint(9, 35)
    text = (
        f"{who.name} is saving for {thing} that costs {count(weekly * weeks + has, money)}. {who.opening} has "
        f"{count(has, money)} already and puts aside {count(weekly, money)} at the end of every week. "
        f"How many weeks will it take until {who.they} has exactly enough?"
    )
    return text, exact(weekly * weeks, weekly), 2


@template
def booklet_printer(rng: random.Random) -> Draw:
    rate, pages = rng.choice([6, 8, 10, 12, 15]), rng.choice([12, 16, 20, 24, 30])
    booklets = rng.choice([n for n in range(10, 41) if n * pages % rate == 0])
    event = rng.choice(["choir concert", "school play", "chess tournament", "book fair"])
    text = (
        f"For the {event}, a printer must print {booklets} booklets of {pages} pages each. It prints {rate} pages "
        f"a minute without a pause. How many minutes does the whole job take?"
    )
    return text, exact(booklets * pages, rate), 2


@template
def opposite_riders(rng: random.Random) -> Draw:
    a, b = two_people(rng)
    slow, more, hours = rng.randint(11, 16), rng.randint(2, 7), rng.randint(2, 4)
    text = (
        f"{a.name} and {b.name} set off on bicycles from the same bridge at the same time, along a straight road but "
        f"in opposite directions. {a.name} rides at {slow} kilometres per hour and {b.name} at {slow + more} "
        f"kilometres per hour. How many kilometres apart are they after {hours} hours?"
    )
    return text, (2 * slow + more) * hours, 2


@template
def card_swaps(rng: random.Random) -> Draw:
    (a, b), thing = two_people(rng), rng.choice(["football cards", "stickers", "badges", "postcards", "marbles"])
    gave, got, now = rng.randint(5, 25), rng.randint(3, 18), rng.randint(30, 90)
    text = (
        f"{a.name} gave {gave} {thing} from {a.their} collection to {b.name} and later found {got} new ones at a flea "
        f"market, which {a.they} added. Now {a.they} has {now} {thing}. "
        + rng.choice([f"How many {thing} did {a.name} have at the start?", f"How many did {a.name} have at first?"])
    )
    return text, now - got + gave, 2


@template
def sunflower_weeks(rng: random.Random) -> Draw:
    plant = rng.choice(["sunflower", "bamboo shoot", "bean vine", "maize plant"])
    start, speed, weeks = rng.randint(5, 30), rng.randint(6, 19), rng.randint(4, 11)
    text = (
        f"A {plant} is {start} centimetres tall and grows {speed} centimetres every week. "
        f"In how many weeks will it be {start + speed * weeks} centimetres tall?"
    )
    return text, exact(speed * weeks, speed), 2


@template
def class_vote(rng: random.Random) -> Draw:
    voters, percent = rng.randint(4, 15) * 20, rng.choice([15, 25, 30, 35, 45, 55, 60, 65])
    what, winner = rng.choice(
        [
            ("colour for the gym", "green"),
            ("name for the school dog", "Biscuit"),
            ("place for a picnic", "the old mill"),
        ]
    )
    text = (
        f"At a school, {voters} children vote on a {what}, and each child casts one vote. Exactly {percent} percent "
        f"of the children vote for {winner}. How many children vote for something else?"
    )
    return text, voters - exact(voters * percent, 100), 2


# ---- three steps ----


@template
def bus_stops(rng: random.Random) -> Draw:
    start, off, on, more = rng.randint(18, 35), rng.randint(4, 15), rng.randint(2, 9), rng.randint(3, 12)
    vehicle, station = rng.choice([("bus", "the depot"), ("tram", "the main square"), ("ferry", "the harbour")])
    text = (
        f"A {vehicle} leaves {station} with {start} passengers. At the first stop, {off} passengers get off and {on} "
        f"get on. At the second stop, nobody gets off and {more} people get on. "
        + rng.choice(
            [
                f"How many passengers are on the {vehicle} after the second stop?",
                "How many passengers are on board when it leaves the second stop?",
            ]
        )
    )
    return text, start - off + on + more, 3


@template
def tomato_rows(rng: random.Random) -> Draw:
    who, crop = rng.choice(PEOPLE), rng.choice(["tomato", "pepper", "cucumber", "aubergine"])
    rows, plants, each = rng.randint(3, 7), rng.randint(4, 9), rng.randint(5, 12)
    gift = rng.randint(10, 55)
    crops = crop + ("es" if crop == "tomato" else "s")
    text = (
        f"In {who.name}'s vegetable patch there are {rows} rows with {plants} {crop} plants in each row. This summer "
        f"every plant gives {each} {crops}. {who.name} gives {gift} of the {crops} to neighbours and keeps the rest. "
        f"How many {crops} does {who.they} keep?"
    )
    return text, rows * plants * each - gift, 3


@template
def bread_bags(rng: random.Random) -> Draw:
    trays, each, bag = rng.randint(4, 9), rng.randint(14, 24), rng.choice([5, 6, 8])
    burnt = trays * each % bag + bag
    bread = rng.choice(["rolls", "buns", "pretzels", "flatbreads"])
    text = (
        f"A bakery bakes {trays} trays of {bread} with {each} {bread} on each tray. Of these, {burnt} are burnt and "
        f"thrown away. All the others are packed in bags of {bag}. How many full bags does the bakery pack?"
    )
    return text, exact(trays * each - burnt, bag), 3


@template
def sale_price(rng: random.Random) -> Draw:
    who, money = rng.choice(PEOPLE), rng.choice(MONEY)
    thing = rng.choice(["jacket", "backpack", "lamp", "raincoat", "blanket"])
    price, percent = rng.randint(2, 6) * 20, rng.choice([5, 10, 15, 20, 25, 30])
    fee = rng.randint(3, 9)
    text = (
        f"In an online shop, a {thing} used to cost {count(price, money)}. The shop lowers this price by {percent} "
        f"percent. {who.name} orders one {thing} at the lower price and also pays {count(fee, money)} for delivery. "
        + rng.choice([f"How many {money}s does {who.name} pay in total?", f"What is the full bill, in {money}s?"])
    )
    return text, price - exact(price * percent, 100) + fee, 3


@template
def swim_goal(rng: random.Random) -> Draw:
    who, pool = rng.choice(PEOPLE), rng.choice([25, 50])
    lengths, days = rng.randint(10, 22), rng.randint(3, 6)
    left = rng.randint(2, 18) * pool
    goal = lengths * days * pool + left
    text = (
        f"{who.name} wants to swim a total of {goal} metres this month. The pool is {pool} metres long, and so far "
        f"{who.they} has swum {lengths} lengths of it on each of {days} days. "
        + rng.choice(["How many metres are still to go?", f"How many more metres must {who.they} swim?"])
    )
    return text, goal - lengths * days * pool, 3


@template
def shell_sharing(rng: random.Random) -> Draw:
    a, b = two_people(rng)
    friends, each, kept = rng.randint(4, 8), rng.randint(6, 14), rng.randint(3, 15)
    total = friends * each + kept
    first = rng.randint(total // 3, total // 2)
    thing = rng.choice(["shells", "pine cones", "chestnuts", "smooth pebbles"])
    text = (
        f"{a.name} collects {first} {thing} and {b.name} collects {total - first}. They put all the {thing} together, "
        f"set {kept} aside for the classroom window and share the rest equally among {friends} friends. How many "
        f"{thing} does each friend get?"
    )
    return text, exact(total - kept, friends), 3


@template
def ribbon_pieces(rng: random.Random) -> Draw:
    who, piece, pieces = rng.choice(PEOPLE), rng.choice([15, 20, 25, 30, 35]), rng.randint(8, 18)
    metres = (piece * pieces + 40) // 100 + 1
    used = metres * 100 - piece * pieces
    thing, use = rng.choice([("ribbon", "a big bow"), ("rope", "a swing"), ("cord", "a plant hanger")])
    text = (
        f"{who.name} has {count(metres, 'metre')} of {thing}. {who.opening} uses {used} centimetres for {use} and "
        f"cuts all the rest into pieces {piece} centimetres long. How many pieces does {who.they} get?"
    )
    return text, exact(metres * 100 - used, piece), 3


@template
def album_space(rng: random.Random) -> Draw:
    who, thing = rng.choice(PEOPLE), rng.choice(["stamps", "photos", "pressed flowers", "coins"])
    per_page, pages = rng.randint(6, 15), rng.randint(16, 30)
    full, extra = rng.randint(5, 13), rng.randint(2, 5)
    text = (
        f"{who.name}'s album has {pages} pages, and each page has room for {per_page} {thing}. So far {full} pages "
        f"are full, one more page has {extra} {thing} on it, and the other pages are empty. "
        + rng.choice(
            [f"How many more {thing} are needed to fill the whole album?", f"How many more {thing} fit into the album?"]
        )
    )
    return text, (pages - full) * per_page - extra, 3


@template
def hiking_days(rng: random.Random) -> Draw:
    who, trail = rng.choice(PEOPLE), rng.choice(["coastal path", "forest trail", "canal path", "mountain trail"])
    first, more, last = rng.randint(8, 17), rng.randint(2, 7), rng.randint(6, 20)
    text = (
        f"{who.name} walks the whole of a {2 * first + more + last}-kilometre {trail} in three days. On the first day "
        f"{who.they} walks {first} kilometres, and on the second day {more} kilometres more than on the first. "
        f"How many kilometres does {who.they} walk on the third day?"
    )
    return text, last, 3


@template
def league_points(rng: random.Random) -> Draw:
    sport = rng.choice(["football", "hockey", "handball"])
    wins, draws, losses = rng.randint(5, 12), rng.randint(2, 7), rng.randint(2, 6)
    other = rng.randint(7, 3 * wins + draws - 2)
    us, them = rng.choice([("Herons", "Badgers"), ("Comets", "Foxes"), ("Tigers", "Owls"), ("Dolphins", "Bears")])
    text = (
        f"In a {sport} league a team gets 3 points for a win, 1 point for a draw and no points for a loss. The {us} "
        f"have {wins} wins, {draws} draws and {losses} losses. The {them} have {other} points. "
        + rng.choice(
            [
                f"How many more points do the {us} have than the {them}?",
                f"By how many points are the {us} ahead of the {them}?",
            ]
        )
    )
    return text, 3 * wins + draws - other, 3


@template
def honey_jars(rng: random.Random) -> Draw:
    who, hives, kilos = rng.choice(PEOPLE), rng.randint(3, 8), rng.randint(8, 16)
    sold = rng.randint(15, 2 * hives * kilos - 5)
    text = (
        f"{who.name} keeps {hives} beehives, and this year each hive gives {kilos} kilograms of honey. {who.opening} "
        f"fills all the honey into jars, and every kilogram fills exactly 2 jars. {who.opening} sells {sold} jars. "
        + rng.choice(["How many jars of honey are left?", f"How many jars does {who.they} still have?"])
    )
    return text, hives * kilos * 2 - sold, 3


@template
def parking_fee(rng: random.Random) -> Draw:
    who, money = rng.choice(PEOPLE), rng.choice(MONEY)
    first, further, hours = rng.randint(4, 7), rng.randint(1, 3), rng.randint(3, 9)
    thing, verb = rng.choice([("car park", "parks there"), ("boat jetty", "ties up a boat there")])
    text = (
        f"A {thing} charges {count(first, money)} for the first hour and {count(further, money)} for every further "
        f"hour. {who.name} {verb} for exactly {hours} hours. How many {money}s does {who.they} pay?"
    )
    return text, first + (hours - 1) * further, 3


@template
def rental_choice(rng: random.Random) -> Draw:
    thing, money = rng.choice(["canoe", "bicycle", "sledge", "rowing boat"]), rng.choice(MONEY)
    fixed, hourly, hours = rng.randint(3, 9), rng.randint(2, 6), rng.randint(2, 5)
    cheap = fixed + hourly * hours
    flat = cheap + rng.randint(2, 12)
    text = (
        f"Two shops rent out the same kind of {thing}. The first shop asks for {count(fixed, money)} plus "
        f"{count(hourly, money)} per hour. The second shop asks for {count(flat, money)} for the whole day. "
        f"For a rental of {hours} hours, how many {money}s cheaper is the first shop than the second?"
    )
    return text, flat - cheap, 3


@template
def recipe_flour(rng: random.Random) -> Draw:
    who, dish = rng.choice(PEOPLE), rng.choice(["dumplings", "pancakes", "flatbread", "scones"])
    serves, guests, each = rng.choice([2, 3, 4, 5]), rng.randint(6, 14), rng.randint(4, 9) * 10
    has = rng.randint(1, guests * each // 50 - 1) * 50 - 10
    text = (
        f"A recipe for {dish} uses {serves * each} grams of flour for {serves} people. {who.name} wants to make "
        f"enough for {guests} people by the same recipe and has {has} grams of flour at home. How many more grams of "
        f"flour does {who.they} need?"
    )
    return text, exact(serves * each, serves) * guests - has, 3


@template
def warm_day(rng: random.Random) -> Draw:
    start, rise, hours = rng.randint(6, 14), rng.randint(2, 3), rng.randint(3, 6)
    fall = rng.randint(3, start + rise * hours - 5)
    place = rng.choice(["At a desert camp", "On a mountain pasture", "At a weather station", "In a greenhouse"])
    text = (
        f"{place} the temperature is {start} degrees at sunrise. It then rises by {rise} degrees an hour for {hours} "
        f"hours. After that it drops by {fall} degrees in all until nightfall. "
        + rng.choice(["What is the temperature at nightfall, in degrees?", "How many degrees is it at nightfall?"])
    )
    return text, start + rise * hours - fall, 3


@template
def plot_fence(rng: random.Random) -> Draw:
    animal = rng.choice(["goats", "hens", "rabbits", "alpacas", "ponies"])
    wide, longer, gate = rng.randint(6, 15), rng.randint(3, 14), rng.randint(2, 4)
    text = (
        f"A farmer fences in a rectangular yard for {animal}. The yard is {wide + longer} metres long and {wide} "
        f"metres wide. A gap of {gate} metres in one side stays open for a gate. How many metres of fence does the "
        "farmer need?"
    )
    return text, 2 * (2 * wide + longer) - gate, 3


@template
def floor_tiles(rng: random.Random) -> Draw:
    room = rng.choice(["kitchen", "hallway", "laundry room", "terrace"])
    long, wide, per, spare = rng.randint(5, 9), rng.randint(2, 4), rng.choice([4, 9, 16]), rng.randint(5, 15)
    text = (
        f"The floor of a {room} is a rectangle {long} metres long and {wide} metres wide. It takes {per} tiles to "
        f"cover one square metre, and the builder also wants {spare} spare tiles. How many tiles should the builder "
        "order?"
    )
    return text, long * wide * per + spare, 3


@template
def syrup_mix(rng: random.Random) -> Draw:
    who, syrup = rng.choice(PEOPLE), rng.choice(["elderflower", "ginger", "hibiscus", "raspberry", "tamarind"])
    parts, part = rng.randint(3, 7), rng.randint(3, 12) * 50
    text = (
        f"{who.name} mixes a drink from 1 part {syrup} syrup and {parts} parts water. {who.opening} wants to end up "
        f"with {(parts + 1) * part} millilitres of the drink. How many millilitres of water does {who.they} need?"
    )
    return text, exact((parts + 1) * part, parts + 1) * parts, 3


@template
def stall_profit(rng: random.Random) -> Draw:
    (a, b), money = two_people(rng), rng.choice(MONEY)
    thing = rng.choice(["bracelets", "candles", "clay bowls", "paper lanterns"])
    made, price = rng.randint(6, 20) * 2, rng.randint(3, 9)
    cost = rng.randint(5, made * price // 4) * 2
    text = (
        f"{a.name} and {b.name} spend {count(cost, money)} on materials and make {made} {thing}. They sell all of "
        f"them for {count(price, money)} each and split the profit equally. How many {money}s of profit does each of "
        "them get?"
    )
    return text, exact(made * price - cost, 2), 3


@template
def chess_club(rng: random.Random) -> Draw:
    players, game = rng.randint(5, 14), rng.choice(["chess", "table tennis", "badminton", "draughts"])
    text = (
        f"A {game} club has {players} players. In its spring tournament every player plays exactly one game against "
        f"every other player. How many games are played in total?"
    )
    return text, exact(players * (players - 1), 2), 3


@template
def bridge_limit(rng: random.Random) -> Draw:
    goods = rng.choice(["rice", "cement", "potatoes", "salt", "seed"])
    empty, sacks, each = rng.randint(24, 36) * 100, rng.randint(12, 40), rng.choice([20, 25, 40, 50])
    limit = (empty + sacks * each) // 500 * 500 + 1000
    text = (
        f"A small bridge may carry at most {limit} kilograms. A truck, with its driver but without any load, weighs "
        f"{empty} kilograms. It carries {sacks} sacks of {goods} that weigh {each} kilograms each. "
        f"By how many kilograms is the loaded truck below the limit?"
    )
    return text, limit - (empty + sacks * each), 3


# ---- four steps ----


@template
def cousin_ages(rng: random.Random) -> Draw:
    a, b = two_people(rng)
    age, times, years = rng.randint(4, 9), rng.randint(2, 3), rng.randint(3, 10)
    word = {2: "twice", 3: "three times"}[times]
    text = f"{a.name} is {age} years old, and {a.their} cousin {b.name} is {word} as old. " + rng.choice(
        [
            f"What will the sum of their two ages be {years} years from now?",
            f"In {years} years, what will the ages of the two cousins add up to?",
        ]
    )
    return text, age + times * age + 2 * years, 4


@template
def wool_shopping(rng: random.Random) -> Draw:
    who, (per_scarf, per_hat) = rng.choice(PEOPLE), rng.choice([(4, 2), (5, 2), (5, 3), (6, 3)])
    scarves, hats = rng.randint(3, 7), rng.randint(3, 9)
    need = scarves * per_scarf + hats * per_hat
    has = rng.randint(4, need - 6)
    text = (
        f"For a winter fair {who.name} plans to knit {scarves} scarves and {hats} hats. One scarf takes {per_scarf} "
        f"balls of wool and one hat takes {per_hat}. {who.opening} already has {has} balls of wool. "
        + rng.choice([f"How many more does {who.they} need?", f"How many more balls must {who.they} buy?"])
    )
    return text, need - has, 4


@template
def way_to_school(rng: random.Random) -> Draw:
    total, (one, other) = rng.randint(2, 6) * 12, rng.choice([(2, 3), (2, 4), (3, 4), (2, 6), (4, 6)])
    name = {2: "half", 3: "a third", 4: "a quarter", 6: "a sixth"}
    place = rng.choice(["A music school", "A small school", "A dance school", "An evening class"])
    text = (
        f"{place} has {total} students. Exactly {name[one]} of the students come on foot, and exactly {name[other]} "
        "of the students come by bus. All the others come by bicycle. How many students come by bicycle?"
    )
    return text, total - exact(total, one) - exact(total, other), 4


@template
def coin_jar(rng: random.Random) -> Draw:
    who, (small, big) = rng.choice(PEOPLE), rng.choice([(5, 10), (10, 20), (5, 20), (10, 50)])
    few, many = rng.randint(4, 12), rng.randint(6, 20)
    total = few * big + many * small
    cost = rng.randint(total // small // 4, total // small - 3) * small  # six small coins or more: always payable
    text = (
        f"In a jar {who.name} has {many} coins of {small} cents each and {few} coins of {big} cents each. "
        f"{who.opening} takes out exactly {cost} cents to buy a notebook. How many cents are left in the jar?"
    )
    return text, total - cost, 4


@template
def reading_week(rng: random.Random) -> Draw:
    who, week, end = rng.choice(PEOPLE), rng.randint(8, 20), rng.randint(22, 40)
    left = rng.randint(15, 90)
    kind = rng.choice(["detective novel", "book about volcanoes", "book of fairy tales", "adventure story"])
    text = (
        f"On a Monday morning, {who.name} starts a {kind} that has {5 * week + 2 * end + left} pages. From Monday to "
        f"Friday {who.they} reads {week} pages each day, and on Saturday and Sunday {end} pages each day. How many "
        "pages are left to read after that week?"
    )
    return text, left, 4


@template
def quiz_average(rng: random.Random) -> Draw:
    who, mean = rng.choice(PEOPLE), rng.randint(14, 22)
    scores = [mean + rng.choice([-4, -3, -2, -1, 1, 2, 3]) for _ in range(3)]
    sport = rng.choice(["juggling contest", "spelling contest", "diving contest", "general knowledge quiz"])
    text = (
        f"{who.name} scores {scores[0]}, {scores[1]} and {scores[2]} points in the first three rounds of a "
        f"{sport}. How many points must {who.they} score in the fourth round for {who.their} average over the four "
        f"rounds to be exactly {mean}?"
    )
    return text, 4 * mean - sum(scores), 4


@template
def puzzle_pieces(rng: random.Random) -> Draw:
    who, total, part = rng.choice(PEOPLE), rng.choice([240, 300, 360, 480, 600, 720]), rng.choice([3, 4, 5])
    more = rng.randint(8, 30)
    name = {3: "a third", 4: "a quarter", 5: "a fifth"}[part]
    text = (
        f"{who.name} is doing a jigsaw puzzle of {total} pieces. On Saturday {who.they} places {name} of all the "
        f"pieces. On Sunday {who.they} places {more} pieces more than on Saturday. "
        + rng.choice(["How many pieces are still not placed?", "How many pieces are then left to place?"])
    )
    return text, total - 2 * exact(total, part) - more, 4


@template
def animal_count(rng: random.Random) -> Draw:
    base, times, fewer = rng.randint(6, 15), rng.randint(2, 4), rng.randint(2, 4)
    word = {2: "twice", 3: "three times", 4: "four times"}[times]
    one, two, three = rng.choice(
        [("guppies", "tetras", "loaches"), ("ducks", "swallows", "herons"), ("frogs", "snails", "newts")]
    )
    where = rng.choice(["On a nature walk", "During a school count", "On a rainy afternoon"])
    group = rng.choice(["Class 4", "Class 5", "the nature club"])
    start = "In a big fish tank" if one == "guppies" else f"{where} by a pond"
    text = (
        f"{start}, {group} counts {base} {one}, {word} as many {two} as {one}, "
        f"and {fewer} fewer {three} than {one}. How many of these animals are counted altogether?"
    )
    return text, base + times * base + (base - fewer), 4


@template
def school_morning(rng: random.Random) -> Draw:
    lessons, minutes, gap = rng.randint(3, 6), rng.choice([30, 35, 40, 45, 50]), rng.choice([5, 10, 15])
    course = rng.choice(["swimming course", "language course", "pottery course", "cooking course"])
    text = (
        f"One day of a {course} has {lessons} lessons of {minutes} minutes each. Between one lesson and the next "
        f"there is always a break of {gap} minutes. How many minutes pass from the start of the first lesson to the "
        "end of the last one?"
    )
    return text, lessons * minutes + (lessons - 1) * gap, 4


# ---- the file ----


def draws(function: Template, seed: int) -> list[Draw]:
    """DRAWS_PER_TEMPLATE draws of one template, no text twice, in an order that only the seed and the slug decide."""
    rng = random.Random(f"{seed}/{slug(function)}")
    found: dict[str, Draw] = {}
    while len(found) < DRAWS_PER_TEMPLATE:
        draw = function(rng)
        found.setdefault(draw[0], draw)
    return list(found.values())


def problems(seed: int = SEED) -> list[dict[str, str | int]]:
    """All rows, one draw of every template after another, so that any stretch of the file is mixed."""
    table = [(slug(function), draws(function, seed)) for function in TEMPLATES]
    rows: list[dict[str, str | int]] = []
    for turn in range(DRAWS_PER_TEMPLATE):
        order = list(table)
        random.Random(f"{seed}/order/{turn}").shuffle(order)
        for name, drawn in order:
            text, answer, steps = drawn[turn]
            if answer < 0:
                raise ValueError(f"{name}: negative answer {answer}")
            row_id = f"word-{len(rows) + 1:03d}"
            rows.append({"id": row_id, "problem": text, "answer": str(answer), "num_steps": steps, "template": name})
    return rows


def render(seed: int = SEED) -> str:
    """The whole file as text."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in problems(seed))


def main(argv: list[str] | None = None) -> int:
    """Write the file, or with --check only compare it."""
    parser = argparse.ArgumentParser(description="Make data/word_problems.jsonl.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file differs")
    parser.add_argument("--out", type=Path, default=OUT, help="the file to write or check")
    args = parser.parse_args(argv)
    wanted = render().encode("utf-8")
    if not args.check:
        args.out.write_bytes(wanted)
        return 0
    if args.out.is_file() and args.out.read_bytes() == wanted:
        return 0
    print(f"{args.out} is not what {Path(__file__).name} makes; run it to write the file anew", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
