"""intaglio-json: a sentence about an order, an event or a contact becomes a small JSON object.

The answer needs more than copying: number words become numbers ("three" -> 3), plurals become singular
("mugs" -> "mug"), clock times become 24-hour times ("3:30 pm" -> "15:30"), and missing fields are null.

The held-out split has no sentence pattern, name, item, place or event of the training split.
"""

from __future__ import annotations

import json
import random

from demo_tasks.extraction_words import DAYS, HELD_OUT_WORDS, NUMBER_WORDS, TRAIN_WORDS, Words

# Many different instructions, or none, so that other wordings work too.
TRAIN_INSTRUCTIONS = (
    "",
    "",
    "",
    "Extract JSON: ",
    "Turn this into JSON: ",
    "Extract the data as JSON.\n",
    "Return a JSON object for this sentence:\n",
    "Convert to JSON.\n\n",
    "Parse this message: ",
    "Give me the fields as JSON: ",
    "JSON please: ",
)
HELD_OUT_INSTRUCTIONS = (
    "",
    "",
    "Extract the fields of this text as JSON: ",
    "Please write this as a JSON object.\n",
)


# If a pattern leaves a field out, the field is null in the JSON.
TRAIN_PATTERNS = {
    "order": (
        "{customer} from {city} ordered {items}.",
        "{customer} ordered {items} to be delivered to {city}.",
        "Please send {items} to {customer} in {city}.",
        "New order: {items} for {customer}, {city}.",
        "{customer} would like {items} shipped to {city}.",
        "We got an order from {customer} in {city} for {items}.",
        "{customer} bought {items}.",
        "I need {items} sent to {city}, the name is {customer}.",
        "Order for {customer}: {items}, ship to {city}.",
        "{items} for {customer}, please.",
        "A customer in {city}, {customer}, just purchased {items}.",
        "Hello, this is {customer}. I want to order {items}. I live in {city}.",
        "{customer} ({city}) wants {items}.",
        "My name is {customer} and I would like to buy {items}.",
        "Ship {items} to {city} for {customer}.",
        "{customer} has requested {items}, delivery to {city}.",
        "Could you deliver {items} to {city}? It is for {customer}.",
        "Today {customer} placed an order for {items}.",
        "Send {customer} {items}.",
        "In {city}, {customer} is waiting for {items}.",
    ),
    "event": (
        "The {title} is on {day} at {time} in {place}.",
        "The {title} will take place at {place} on {day} at {time}.",
        "Join us for the {title} on {day}, {time}, at {place}.",
        "On {day} at {time} we have a {title} at {place}.",
        "{title} on {day} at {time}.",
        "Reminder: {title}, {day} {time}, {place}.",
        "Don't forget the {title} this {day} at {time} in {place}.",
        "There is a {title} at {place} on {day}, starting at {time}.",
        "We moved the {title} to {day} at {time}.",
        "Our next {title} starts at {time} on {day} in {place}.",
        "{day}, {time}: {title} at {place}.",
        "Come to {place} on {day} for the {title}.",
        "I scheduled the {title} for {day} at {time}, we meet at {place}.",
        "Are you free on {day} at {time}? The {title} is at {place}.",
        "The {title} has been booked in {place} for {time} on {day}.",
        "Please add the {title} to my calendar: {day}, {time}.",
        "At {time} on {day} the {title} begins in {place}.",
        "You are invited to a {title} at {place}, {day} at {time}.",
        "Meet me at {place} on {day} at {time} for the {title}.",
    ),
    "contact": (
        "{name} can be reached at {phone} or {email}.",
        "Call {name} on {phone} or write to {email}.",
        "My name is {name}, my email is {email} and my phone number is {phone}.",
        "{name}, {phone}, {email}",
        "You can email {name} at {email}.",
        "The phone number of {name} is {phone}.",
        "Please contact {name} ({email}, {phone}).",
        "Hi, I'm {name}. Reach me at {email} or call {phone}.",
        "Save this contact: {name}, phone {phone}, email {email}.",
        "{name} has a new number: {phone}.",
        "Write to {email} and ask for {name}, or phone {phone}.",
        "This is {name}, you can call me back at {phone}.",
        "Here are the details of {name}: {email}, {phone}.",
        "{name} <{email}>, tel. {phone}",
        "For questions ask {name}, email {email}, phone {phone}.",
        "{name} prefers email: {email}.",
        "Tel {phone}, mail {email}: that is {name}.",
        "Add {name} to the address book, number {phone}.",
    ),
}

HELD_OUT_PATTERNS = {
    "order": (
        "We received an order for {items} from {customer}, who lives in {city}.",
        "{customer} wants to buy {items} and have them delivered to {city}.",
        "Can you send {items} to {customer}?",
        "This is {customer} from {city}, I would like to order {items}.",
        "{customer} just ordered {items} for delivery in {city}.",
        "Please prepare {items} for {customer} in {city}.",
    ),
    "event": (
        "The {title} happens on {day} at {time} in {place}.",
        "We are holding a {title} at {place} this {day} at {time}.",
        "The next {title} is planned for {day} at {time}.",
        "See you at the {title} in {place} on {day} at {time}.",
        "Everyone is welcome at the {title}: {day} at {time}, {place}.",
        "On {day} the {title} starts at {time} in {place}.",
    ),
    "contact": (
        "To reach {name}, call {phone} or send an email to {email}.",
        "I am {name}; my number is {phone} and my address is {email}.",
        "{name}'s phone number is {phone}.",
        "Please email {name} at {email} or call {phone}.",
        "New contact: {name}, {email}, {phone}.",
        "Send a message to {name} at {email}.",
    ),
}

FIELDS = {
    "order": ("customer", "item", "quantity", "city"),
    "event": ("title", "day", "time", "place"),
    "contact": ("name", "phone", "email"),
}


def make_pair(rng: random.Random, *, held_out: bool) -> tuple[str, str]:
    """One (prompt, answer): a sentence, perhaps with an instruction before it, and its JSON object."""
    words = HELD_OUT_WORDS if held_out else TRAIN_WORDS
    patterns = HELD_OUT_PATTERNS if held_out else TRAIN_PATTERNS
    instructions = HELD_OUT_INSTRUCTIONS if held_out else TRAIN_INSTRUCTIONS
    kind = rng.choice(tuple(FIELDS))
    pattern = rng.choice(patterns[kind])
    spoken, values = _ENTITY_MAKERS[kind](rng, words)
    sentence = pattern.format(**spoken)
    mentioned = {"item" if name == "items" else name for name in spoken if "{" + name + "}" in pattern}
    if "item" in mentioned:
        mentioned.add("quantity")
    answer = {"type": kind} | {field: values[field] if field in mentioned else None for field in FIELDS[kind]}
    return rng.choice(instructions) + sentence[0].upper() + sentence[1:], json.dumps(answer)


def _order(rng: random.Random, words: Words) -> tuple[dict[str, str], dict[str, object]]:
    quantity, item = rng.randint(1, 20), rng.choice(words.items)
    customer, city = _full_name(rng, words), rng.choice(words.cities)
    if quantity == 1:
        spoken_quantity = "an" if item[0] in "aeiou" else "a"
    else:
        spoken_quantity = str(quantity) if rng.random() < 0.5 else NUMBER_WORDS[quantity - 1]
        if quantity == 12 and rng.random() < 0.5:
            spoken_quantity = "a dozen"
    items = f"{spoken_quantity} {item}" + ("s" if quantity > 1 else "")
    spoken = {"customer": customer, "items": items, "city": city}
    return spoken, {"customer": customer, "item": item, "quantity": quantity, "city": city}


def _event(rng: random.Random, words: Words) -> tuple[dict[str, str], dict[str, object]]:
    hour, minute = rng.randint(7, 22), rng.choice((0, 0, 15, 30, 45))
    title, day, place = rng.choice(words.titles), rng.choice(DAYS), rng.choice(words.places)
    time = f"{hour:02}:{minute:02}"
    spoken = {"title": title, "day": day, "time": _spoken_time(rng, hour, minute), "place": place}
    return spoken, {"title": title, "day": day, "time": time, "place": place}


def _contact(rng: random.Random, words: Words) -> tuple[dict[str, str], dict[str, object]]:
    name = _full_name(rng, words)
    first, last = name.lower().split(" ")
    box = rng.choice((first, f"{first}.{last}", f"{first[0]}{last}", f"{last}{rng.randint(1, 99)}"))
    values = {"name": name, "phone": _phone(rng), "email": f"{box}@{rng.choice(words.domains)}"}
    return values, dict(values)


_ENTITY_MAKERS = {"order": _order, "event": _event, "contact": _contact}


def _full_name(rng: random.Random, words: Words) -> str:
    return f"{rng.choice(words.first_names)} {rng.choice(words.last_names)}"


def _phone(rng: random.Random) -> str:
    digits = "".join(rng.choice("0123456789") for _ in range(7))
    return rng.choice(("{}-{}", "555 {} {}", "+44 {} {}", "({}) {}")).format(digits[:3], digits[3:])


def _spoken_time(rng: random.Random, hour: int, minute: int) -> str:
    if hour == 12 and minute == 0 and rng.random() < 0.5:
        return "noon"
    style = rng.randrange(4)
    if style == 0:
        return f"{hour:02}:{minute:02}"
    clock = str((hour - 1) % 12 + 1) + (f":{minute:02}" if minute else "")
    return clock + (" am", "am")[style % 2] if hour < 12 else clock + (" pm", "pm")[style % 2]
