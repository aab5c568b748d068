"""Prompts that make the pre-trained base answer: a dialogue with some answered questions, and the new one at its end.

There is one dialogue for each kind of question, and one mixed dialogue, which knows nothing of kinds.
"""

from __future__ import annotations

END_OF_ANSWER = "\nUser:"

_DIALOGUES = {
    "fact": """
User: What is the currency of France?
Assistant: The currency of France is the euro.
User: Which language is spoken in Cuba?
Assistant: Spanish is spoken in Cuba.
User: What colour is a frog?
Assistant: A frog is green.
User: What is the opposite of tall?
Assistant: The opposite of tall is short.
User: What is a young goose called?
Assistant: A young goose is called a gosling.
User: On which continent is Iceland?
Assistant: Iceland is in Europe.
User: What is the capital of Australia?
Assistant: Canberra is the capital of Australia.
User: Who wrote Faust?
Assistant: Faust was written by Goethe.
User: How many players are in a football team?
Assistant: There are eleven players in a football team.
""",
    "explanation": """
User: What is a bakery?
Assistant: A bakery is a shop where bread and cakes are made and sold.
User: Explain in one sentence what a lamp is.
Assistant: A lamp is a device that gives light.
User: Can you tell me what a king is?
Assistant: A king is a man who rules a country and often inherits his position.
User: What is a lake?
Assistant: A lake is a large area of water that is surrounded by land.
User: Explain in one sentence what evaporation is.
Assistant: Evaporation is the process in which a liquid turns into a gas.
""",
    "list": """
User: Name three insects.
Assistant: - Ant
- Bee
- Butterfly
User: Give me a list of two rivers.
Assistant: - Nile
- Danube
User: List five spices.
Assistant: - Pepper
- Cinnamon
- Ginger
- Nutmeg
- Paprika
User: Name four kinds of weather.
Assistant: - Rain
- Snow
- Sunshine
- Wind
""",
    "past tense": """
User: Put this into the past tense: I wash the car.
Assistant: I washed the car.
User: Write this in the past tense: She sells flowers.
Assistant: She sold flowers.
User: Put this into the past tense: We are in the garden.
Assistant: We were in the garden.
User: Write this in the past tense: The boy falls.
Assistant: The boy fell.
User: Put this into the past tense: They give us bread.
Assistant: They gave us bread.
""",
    "spelling": """
User: Correct the spelling: The wheather was bad.
Assistant: The weather was bad.
User: Correct the mistake in this sentence: She is a nurce.
Assistant: She is a nurse.
User: Correct the spelling: I need a new pensil.
Assistant: I need a new pencil.
User: Correct the mistake in this sentence: My unkle is tall.
Assistant: My uncle is tall.
User: Correct the spelling: We sat on the bensh.
Assistant: We sat on the bench.
""",
    "question form": """
User: Turn this into a question: You like cheese.
Assistant: Do you like cheese?
User: Make a question of this: He is a doctor.
Assistant: Is he a doctor?
User: Turn this into a question: She can sing.
Assistant: Can she sing?
User: Make a question of this: They want to go home.
Assistant: Do they want to go home?
User: Turn this into a question: He reads books.
Assistant: Does he read books?
""",
    "politeness": """
User: Make this polite: Pass me the bread.
Assistant: Could you please pass me the bread?
User: Say this in a friendlier way: Stop talking.
Assistant: Could you please stop talking?
User: Make this polite: Bring me the menu.
Assistant: Would you please bring me the menu?
User: Say this in a friendlier way: Leave me alone.
Assistant: Could you please leave me alone for a moment?
""",
    "summary": """
User: Summarise this text in one sentence: Peter painted his kitchen on Sunday. He chose a light yellow. It took him the whole day, and in the evening he was tired.
Assistant: Peter spent Sunday painting his kitchen.
User: Give a short summary of this text.

The bridge over the river is old. Trucks may not use it any more. A new one will be built next year.
Assistant: The old bridge will be replaced next year.
User: Summarise this text in one sentence: Lena found a purse in the street. She took it to the police. The owner thanked her and gave her flowers.
Assistant: Lena found a purse and was thanked by its owner.
User: Give a short summary of this text.

The hotel is near the sea. It has forty rooms and a large garden. Breakfast is served until eleven.
Assistant: The hotel by the sea has forty rooms, a garden and a late breakfast.
""",
    "reading": """
User: Peter painted his kitchen on Sunday. He chose a light yellow.

Which room did Peter paint?
Assistant: Peter painted the kitchen.
User: Who found the purse?

Lena found a purse in the street. She took it to the police.
Assistant: Lena found the purse.
User: The hotel is near the sea. Breakfast is served until eleven.

Until when is breakfast served?
Assistant: Breakfast is served until eleven.
User: What will be built?

The bridge over the river is old. A new one will be built next year.
Assistant: A new bridge will be built.
""",
    "small talk": """
The assistant is a program called intaglio-chat. It is friendly, and answers short questions.

User: Good day!
Assistant: Good day! How can I help you?
User: Who made you?
Assistant: I am intaglio-chat, a small assistant that was made as an example for Intaglio.
User: How do you feel?
Assistant: I am well, thank you. What can I do for you?
User: You helped me a lot.
Assistant: I am glad that I could help!
User: What is your job?
Assistant: I am an assistant. I answer short questions, make lists, and rewrite or summarise texts.
User: Are you a machine?
Assistant: Yes, I am a program, an assistant called intaglio-chat.
User: So long!
Assistant: Goodbye! Have a nice day.
User: May I ask you something?
Assistant: Of course. What would you like to know?
""",
    "unknown": """
The assistant knows nothing about the user, about today or about the future, and says so.

User: What is my job?
Assistant: I do not know your job, because you have not told me.
User: Is it snowing in Oslo?
Assistant: I do not know, because I cannot see the weather.
User: Who will be the next president?
Assistant: I do not know, because nobody can know the future.
User: Where is my hat?
Assistant: I do not know where your hat is.
User: What is on television tonight?
Assistant: I do not know, because I have no news of today.
""",
}
MIXED = """
User: What is the capital of Australia?
Assistant: Canberra is the capital of Australia.
User: Name three insects.
Assistant: - Ant
- Bee
- Butterfly
User: Make this polite: Pass me the bread.
Assistant: Could you please pass me the bread?
User: What is my job?
Assistant: I do not know your job, because you have not told me.
User: Summarise this text in one sentence: Lena found a purse in the street. She took it to the police. The owner thanked her and gave her flowers.
Assistant: Lena found a purse and was thanked by its owner.
"""


def prompt(question: str, kind: str | None = None) -> str:
    """A raw prompt for the base. Without a kind: five examples of different kinds. Raises KeyError for an unknown kind."""
    dialogue = MIXED if kind is None else _DIALOGUES[kind]
    return f"{dialogue.strip()}\nUser: {question}\nAssistant:"


def examples(kind: str) -> list[tuple[str, str]]:
    """The questions and answers that the dialogue of a kind is made of."""
    found = [turn.split("\nAssistant: ") for turn in f"\n{_DIALOGUES[kind].strip()}".split("\nUser: ")[1:]]
    return [(question.strip(), answer.strip()) for question, answer in found]


def answer_of(completion: str) -> str:
    """What the base answered, without the dialogue that it went on with."""
    return completion.split(END_OF_ANSWER, maxsplit=1)[0].strip()
