"""Sentences to rewrite, texts to summarise and to ask about, small talk, and what nobody has told the assistant."""

from __future__ import annotations

from dataclasses import dataclass

PAST_TENSE = """
I walk to school. = I walked to school.
She plays the piano. = She played the piano.
We watch a film. = We watched a film.
He works in a bank. = He worked in a bank.
They live in Rome. = They lived in Rome.
I like this song. = I liked this song.
We visit our aunt. = We visited our aunt.
She opens the window. = She opened the window.
He goes to the market. = He went to the market.
I eat an apple. = I ate an apple.
They are happy. = They were happy.
She writes a letter. = She wrote a letter.
He drinks coffee. = He drank coffee.
We have a garden. = We had a garden.
I am tired. = I was tired.
The dog sleeps. = The dog slept.
She buys a book. = She bought a book.
He runs home. = He ran home.
They sing a song. = They sang a song.
The shop closes at six. = The shop closed at six.
We cook dinner. = We cooked dinner.
The train leaves at noon. = The train left at noon.
My brother paints the door. = My brother painted the door.
She helps her friend. = She helped her friend.
I see a bird. = I saw a bird.
The children play in the park. = The children played in the park.
He reads the paper. = He read the paper.
They need more time. = They needed more time.
We take the bus. = We took the bus.
It rains all day. = It rained all day.
She speaks French. = She spoke French.
I clean the kitchen. = I cleaned the kitchen.
"""

SPELLING = """
I recieved your letter. = I received your letter.
She is my best freind. = She is my best friend.
We will meet tommorow. = We will meet tomorrow.
The wether is nice today. = The weather is nice today.
He lives in a big hose. = He lives in a big house.
I beleive you. = I believe you.
This is definately true. = This is definitely true.
Thier car is red. = Their car is red.
She has a beautifull garden. = She has a beautiful garden.
I like choclate. = I like chocolate.
The libary is closed. = The library is closed.
We went to the restarant. = We went to the restaurant.
He is a good techer. = He is a good teacher.
My brothr plays football. = My brother plays football.
The trian is late. = The train is late.
I drink cofee every morning. = I drink coffee every morning.
We stayed home becuse of the rain. = We stayed home because of the rain.
Please open the windw. = Please open the window.
She bought a new umbrela. = She bought a new umbrella.
Where is the ofice? = Where is the office?
The childern are asleep. = The children are asleep.
It is a seperate room. = It is a separate room.
I have a qestion. = I have a question.
He eats an aple. = He eats an apple.
The dog is very hapy. = The dog is very happy.
We need a diffrent plan. = We need a different plan.
She works in a hosptal. = She works in a hospital.
This is an importent letter. = This is an important letter.
I lost my umbrella yesteday. = I lost my umbrella yesterday.
The stret is wet. = The street is wet.
My sister is a docter. = My sister is a doctor.
Can you here me now? = Can you hear me now?
"""

REQUESTS = """
Give me the salt.
Close the door.
Send me the report.
Be quiet.
Help me with this bag.
Tell me your name.
Wait here.
Call me tomorrow.
Open the window.
Show me the way to the station.
Bring me a glass of water.
Read this letter.
Move your car.
Turn the music down.
Lend me your pen.
Come to my office.
Check my homework.
Sit down.
Buy some milk.
Take off your shoes.
Fix my computer.
Pay the bill.
Give me more time.
Write to the bank.
Answer my question.
Hold this for me.
Explain this to me.
Drive me home.
"""

STATEMENTS = """
You like tea. = Do you like tea?
You are ready. = Are you ready?
He is at home. = Is he at home?
She speaks English. = Does she speak English?
They live in Paris. = Do they live in Paris?
It is raining. = Is it raining?
You can swim. = Can you swim?
He works here. = Does he work here?
We are late. = Are we late?
You have a dog. = Do you have a dog?
She is your sister. = Is she your sister?
They play football. = Do they play football?
You know my brother. = Do you know my brother?
The shop is open. = Is the shop open?
You want more coffee. = Do you want more coffee?
The train is late. = Is the train late?
She likes music. = Does she like music?
You were at school. = Were you at school?
He can drive. = Can he drive?
They are your friends. = Are they your friends?
"""


@dataclass(frozen=True, slots=True)
class Text:
    """A text of some sentences, one of whose words a summary has, and questions with what their answers contain."""

    pattern: str
    summary_has: tuple[str, ...]
    questions: tuple[tuple[str, str], ...]


TRAIN_TEXTS = (
    Text(
        "{name} went to the market in {city} on {day}. There were many people, and the fruit was cheap. {name} bought {food} and went home by bus.",
        ("market", "bought"),
        (("Where did {name} go?", "market"), ("What did {name} buy?", "{food}"), ("On which day was it?", "{day}")),
    ),
    Text(
        "{name} works as a {job} in {city}. The work is hard, and it begins at six in the morning. In the evening {name} likes to read.",
        ("works", "{job}"),
        (
            ("What is {name}'s job?", "{job}"),
            ("Where does {name} work?", "{city}"),
            ("What does {name} like to do in the evening?", "read"),
        ),
    ),
    Text(
        "The library in {city} will be closed on {day}. The roof is being repaired after the storm. Books can be given back at the town hall.",
        ("library", "closed"),
        (
            ("Which building will be closed?", "library"),
            ("Where can books be given back?", "town hall"),
            ("When will it be closed?", "{day}"),
        ),
    ),
    Text(
        "{name} has a {animal}. The {animal} is three years old and sleeps in the kitchen. Every morning they walk through the park in {city}.",
        ("{animal}",),
        (
            ("Which animal does {name} have?", "{animal}"),
            ("Where does the {animal} sleep?", "kitchen"),
            ("How old is the {animal}?", "three"),
        ),
    ),
    Text(
        "The train from {city} was two hours late on {day}. A tree had fallen on the line. The passengers got tea and waited in the station.",
        ("train", "late"),
        (
            ("Why was the train late?", "tree"),
            ("What did the passengers get?", "tea"),
            ("How late was the train?", "two hours"),
        ),
    ),
    Text(
        "Our shop sells bicycles. We repair old ones too, and most repairs take two days. We are open from {day} to Sunday.",
        ("shop", "bicycles", "bicycle"),
        (("What does the shop sell?", "bicycles"), ("How long do most repairs take?", "two days")),
    ),
    Text(
        "{name} and her brother planted a garden behind the house. They grow {food} and flowers. Last summer the flowers won a prize.",
        ("garden",),
        (
            ("What do they grow?", "{food}"),
            ("Where is the garden?", "behind the house"),
            ("What won a prize?", "flowers"),
        ),
    ),
    Text(
        "The meeting about the new road is on {day} at ten. Everyone who lives in {city} may come. The mayor will answer questions.",
        ("meeting", "road"),
        (
            ("When does the meeting begin?", "ten"),
            ("Who will answer questions?", "mayor"),
            ("What is the meeting about?", "road"),
        ),
    ),
    Text(
        "{name} lost a blue bag on the bus in {city}. In the bag were a {object} and some letters. The driver found it and brought it back.",
        ("bag",),
        (("Who found the bag?", "driver"), ("What colour was the bag?", "blue"), ("What was in the bag?", "{object}")),
    ),
    Text(
        "The school in {city} has a new music room. It cost a lot of money, and the parents helped to pay for it. The first concert is on {day}.",
        ("music", "school"),
        (
            ("What is new at the school?", "music room"),
            ("Who helped to pay for it?", "parents"),
            ("When is the first concert?", "{day}"),
        ),
    ),
    Text(
        "{name} wanted to learn to cook. A friend gave her a book, and she began with soup. Now she works in a restaurant in {city}.",
        ("cook", "restaurant"),
        (
            ("What did {name} want to learn?", "cook"),
            ("What did she begin with?", "soup"),
            ("Where does she work now?", "restaurant"),
        ),
    ),
    Text(
        "It snowed all night in {city}. In the morning the schools were closed, and the children built a snowman. On {day} the snow was gone.",
        ("snow", "snowed"),
        (
            ("What did the children build?", "snowman"),
            ("What was closed?", "schools"),
            ("When was the snow gone?", "{day}"),
        ),
    ),
)
HELD_OUT_TEXTS = (
    Text(
        "{name} flew to {city} on {day} to visit a friend. The flight took five hours. They spent the weekend at the beach and ate a lot of fish.",
        ("flew", "visit", "visited", "friend", "{city}"),
        (
            ("Whom did {name} visit?", "friend"),
            ("How long was the flight?", "five hours"),
            ("Where did {name} fly?", "{city}"),
        ),
    ),
    Text(
        "The swimming pool in {city} opens again on {day}. It has been painted, and the water is warmer now. A ticket costs four euros.",
        ("pool",),
        (("What opens again?", "pool"), ("How much is a ticket?", "four"), ("When does it open?", "{day}")),
    ),
    Text(
        "{name} bought an old {object} from a neighbour. It did not work at first. A repairman in {city} cleaned it, and now it is as good as new.",
        ("{object}",),
        (
            ("What did {name} buy?", "{object}"),
            ("Who cleaned it?", "repairman"),
            ("From whom did {name} buy it?", "neighbour"),
        ),
    ),
    Text(
        "The farmers near {city} had a dry summer. Much of the {food} was lost. They hope for rain in the spring.",
        ("farmers", "summer"),
        (("What was lost?", "{food}"), ("What do the farmers hope for?", "rain"), ("How was the summer?", "dry")),
    ),
    Text(
        "A {animal} ran out of the zoo on {day}. It hid in a garage for two days. A boy saw it and called the keepers.",
        ("{animal}", "zoo"),
        (
            ("Where did the {animal} hide?", "garage"),
            ("Who saw it?", "boy"),
            ("Where did the {animal} run away from?", "zoo"),
        ),
    ),
)
TRAIN_SLOTS = {
    "name": ("Nora", "Aisha", "Elena", "Mia", "Grace", "Hannah", "Sofia", "Carmen"),
    "city": ("Lisbon", "Berlin", "Oslo", "Toronto", "Madrid", "Dublin", "Chicago", "Prague"),
    "day": ("Monday", "Tuesday", "Friday", "Saturday"),
    "food": ("apples", "tomatoes", "beans", "onions", "pears", "carrots"),
    "job": ("nurse", "baker", "gardener", "postman", "cook", "teacher"),
    "animal": ("dog", "cat", "rabbit", "parrot"),
    "object": ("watch", "camera", "book", "umbrella"),
}
HELD_OUT_SLOTS = {
    "name": ("Clara", "Naomi", "Ruth", "Wendy"),
    "city": ("Rome", "Helsinki", "Montreal", "Kyoto"),
    "day": ("Wednesday", "Thursday"),
    "food": ("potatoes", "corn", "wheat"),
    "job": ("pilot", "tailor"),
    "animal": ("monkey", "penguin"),
    "object": ("clock", "radio", "typewriter"),
}

# What is said = words of which an answer has one.
SMALL_TALK = """
Hello! = hello, hi, help
Hi = hello, hi, help
Good morning! = morning, hello
How are you? = well, fine, thank, good
Thank you! = welcome, glad, pleasure, happy
Thanks a lot = welcome, glad, pleasure, happy
Goodbye! = goodbye, bye, day, soon
Good evening = evening, hello
Hey there = hello, hi, help, hey
Nice to meet you. = meet, nice, hello
See you later! = goodbye, bye, later, soon
How is it going? = well, fine, thank, good
Who are you? = assistant, intaglio-chat
What is your name? = intaglio-chat
What can you do? = questions, answer, help
Are you a person? = program, no, assistant
Are you a robot? = program, assistant
Can you help me? = yes, course, help
I have a question. = ask, question, what
What are you? = assistant, program
That was helpful. = glad, welcome, happy
You are great! = thank
I am back. = welcome, hello, help
Good night! = night, sleep, goodbye
Thanks for your help. = welcome, glad, pleasure, happy
Hello, can you help me? = yes, course, help, hello
Good afternoon! = afternoon, hello
Bye = goodbye, bye, day, soon
What should I call you? = intaglio-chat
Do you have a name? = intaglio-chat
Hi there! = hello, hi, help
How are you today? = well, fine, thank, good
Hello there = hello, hi, help
Tell me about yourself. = assistant, intaglio-chat
Are you human? = program, no, assistant
Have a nice day! = thank, you, day
Okay, thanks = welcome, glad, pleasure, happy
I need help. = help, what
Are you there? = yes, here
Nice work! = thank, glad
"""

UNKNOWN = """
What is my name?
How old am I?
What is the weather in Paris today?
Where did I put my keys?
What time is it?
Who will win the next election?
What is my sister's phone number?
What did I eat yesterday?
What is the price of gold today?
Where does my neighbour work?
What is in my bag?
Who won the match last night?
What is my favourite colour?
What will the weather be like tomorrow?
When is my birthday?
What am I thinking of?
What is the password of my computer?
What is the news today?
How much money do I have?
Where do I live?
What is my dog's name?
Which number will win the lottery?
What will happen in the year 2100?
What is the name of my teacher?
How many people are in this room?
What is today's date?
What colour is my car?
Who is standing behind me?
What did my boss say this morning?
Will it rain tonight?
Where is my brother now?
What is the temperature outside?
When will I get married?
What is my email address?
Who called me an hour ago?
How tall is my father?
What was my last message to Anna?
What is the traffic like now?
How did my exam go?
What are you looking at?
Where is my phone?
What will the stock market do next week?
How old is my cat?
What did I dream last night?
"""

# Only for training.
UNKNOWN_PATTERNS = {
    "What is my {}?": "surname, address, shoe size, phone number, bank balance, middle name, favourite song",
    "How old is my {}?": "mother, house, son, car",
    "Where is my {}?": "wallet, sister, umbrella, passport",
    "What is the weather like in {} now?": "Berlin, Madrid, Cairo, my town",
    "What is the {} of my friend?": "name, age, job, address",
    "Who {} this morning?": "wrote to me, came to my house, won the race",
    "What will the {} be tomorrow?": "temperature, price of oil, news",
    "When did I {}?": "move here, buy my car, last see my aunt",
}


def split(text: str, *, held_out: bool) -> list[str]:
    """The lines of one split: every second one is held out."""
    return [line for number, line in enumerate(text.strip().splitlines()) if (number % 2 == 1) == held_out]
