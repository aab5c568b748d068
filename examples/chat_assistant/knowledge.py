"""Facts and words that the questions of intaglio-chat are made from, with what a right answer contains.

One entry per line, `asked = answers`, with commas between answers of which one is enough. Every fourth entry of a table
is held out: training has no question about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CAPITALS = """
Spain = Madrid
Italy = Rome
Germany = Berlin
France = Paris
Portugal = Lisbon
England = London
Ireland = Dublin
Japan = Tokyo
Greece = Athens
Austria = Vienna
Poland = Warsaw
Norway = Oslo
Sweden = Stockholm
Denmark = Copenhagen
Finland = Helsinki
Egypt = Cairo
Hungary = Budapest
Belgium = Brussels
Canada = Ottawa
China = Beijing
Russia = Moscow
Peru = Lima
Cuba = Havana
Kenya = Nairobi
Thailand = Bangkok
Argentina = Buenos Aires
Chile = Santiago
Iceland = Reykjavik
India = New Delhi, Delhi
Turkey = Ankara
Iran = Tehran
South Korea = Seoul
Bulgaria = Sofia
Romania = Bucharest
Serbia = Belgrade
Mexico = Mexico City
Colombia = Bogota, Bogotá
Venezuela = Caracas
Uruguay = Montevideo
Indonesia = Jakarta
Vietnam = Hanoi
Iraq = Baghdad
Nepal = Kathmandu
Morocco = Rabat
Tunisia = Tunis
Ukraine = Kyiv, Kiev
Croatia = Zagreb
Scotland = Edinburgh
the Netherlands = Amsterdam
the Czech Republic = Prague
the United States = Washington
the Philippines = Manila
"""

LANGUAGES = """
Spain = Spanish
Germany = German
Portugal = Portuguese
Italy = Italian
Japan = Japanese
France = French
Mexico = Spanish
Brazil = Portuguese
Poland = Polish
Sweden = Swedish
Greece = Greek
Argentina = Spanish
Russia = Russian
Austria = German
Egypt = Arabic
Turkey = Turkish
Denmark = Danish
Hungary = Hungarian
Finland = Finnish
Thailand = Thai
"""

CONTINENTS = """
Kenya = Africa
Spain = Europe
Peru = South America, Americas
Japan = Asia
Egypt = Africa
China = Asia
Norway = Europe
Poland = Europe
Brazil = South America, Americas
India = Asia
Nigeria = Africa
Morocco = Africa
Canada = North America, Americas
Greece = Europe
Thailand = Asia
Chile = South America, Americas
"""

YOUNG_ANIMALS = """
dog = puppy
cow = calf
sheep = lamb
cat = kitten
horse = foal, colt
goat = kid
duck = duckling
bear = cub
pig = piglet
lion = cub
frog = tadpole
hen = chick
"""

OPPOSITES = """
big = small, little
good = bad
happy = sad, unhappy
hot = cold
up = down
fast = slow
old = young, new
open = closed, close, shut
full = empty
hard = soft, easy
day = night
long = short
early = late
rich = poor
strong = weak
wet = dry
true = false
clean = dirty
high = low
light = dark, heavy
loud = quiet, silent, soft
thick = thin
win = lose
left = right
begin = end, finish
friend = enemy
"""

COLOURS = """
grass = green
snow = white
the sky = blue
a banana = yellow
blood = red
coal = black
a carrot = orange
a tomato = red
milk = white
the sun = yellow
a lemon = yellow
the sea = blue
a polar bear = white
a raven = black
chocolate = brown
a strawberry = red
"""

GENERAL = """
How many days are in a week? = seven, 7
How many months are in a year? = twelve, 12
How many hours are in a day? = 24, twenty-four, twenty four
How many legs does a spider have? = eight, 8
How many minutes are in an hour? = 60, sixty
How many legs does a dog have? = four, 4
How many sides does a triangle have? = three, 3
How many seconds are in a minute? = 60, sixty
How many wheels does a bicycle have? = two, 2
How many sides does a square have? = four, 4
How many fingers are on one hand? = five, 5
How many legs does a cat have? = four, 4
What do bees make? = honey
What do cows give us to drink? = milk
What do plants need to grow? = water, sun, light, sunlight
What is frozen water called? = ice
What is the largest planet in the solar system? = Jupiter
What is the largest ocean? = Pacific
Which planet do we live on? = Earth
What is the name of the star that gives the Earth its light? = sun
What is the longest river in Africa? = Nile
What is the highest mountain in the world? = Everest
What is the first month of the year? = January
What is the last month of the year? = December
Which month comes after April? = May
Which day comes after Monday? = Tuesday
Which day comes before Sunday? = Saturday
Which season comes after winter? = spring
Who wrote Romeo and Juliet? = Shakespeare
Who painted the Mona Lisa? = Leonardo, Vinci
Who wrote Oliver Twist? = Dickens
Who wrote Hamlet? = Shakespeare
What do we call a person who teaches? = teacher
What do we call a person who flies a plane? = pilot
What do we call a person who bakes bread? = baker
Who treats people's teeth? = dentist
What do you use to cut paper? = scissors
What do you use to write on a blackboard? = chalk
What do you wear on your feet? = shoes, socks, boots
What do you use to tell the time? = clock, watch
What is the chemical formula of water? = H2O, H₂O
What is the freezing point of water in degrees Celsius? = 0, zero
What is the currency of Japan? = yen
What is the currency of the United Kingdom? = pound
What is the currency of the United States? = dollar
What is the currency of Germany? = euro
What is the currency of India? = rupee
What is the currency of Spain? = euro
What animal says meow? = cat
Which animal barks? = dog
Which animal has a very long neck? = giraffe
Which animal has a trunk? = elephant
Which bird cannot fly and lives in Antarctica? = penguin
Which animal is called the king of the jungle? = lion
Which insect makes honey? = bee
Which animal lives in a kennel? = dog
What is bread made from? = flour, wheat
What is cheese made from? = milk
What is wine made from? = grape, grapes
What is butter made from? = milk, cream
What is paper made from? = wood, trees, pulp
What do fish breathe with? = gills
What do humans breathe? = air, oxygen
What falls from the sky when it rains? = water, rain
"""

EXPLAINED = """
a volcano = mountain, lava, magma, erupt, eruption
a dentist = teeth, tooth
a library = books, book
photosynthesis = plants, sunlight, light, energy
a bakery = bread, cakes, bake, baked
an island = water, sea, land
a desert = dry, sand, rain
a hospital = sick, doctors, patients, medical
a museum = art, objects, history, collection
a thermometer = temperature
a river = water
a rainbow = colours, colors, light, arc
a dictionary = words, meaning, meanings
an airport = planes, aircraft, flights, airplanes
a telescope = stars, distant, far, space, objects
gravity = force, earth, objects
a passport = travel, country, identity, document
a farmer = crops, animals, farm, land, food
a bridge = river, cross, road, structure
an architect = buildings, building, design, designs, houses
a bicycle = wheels, two, ride, vehicle
a glacier = ice
an orchestra = music, musicians, instruments
a recipe = food, cook, cooking, ingredients, dish, instructions
a forest = trees
a waterfall = water, river
a newspaper = news
a calendar = days, dates, months, year
an earthquake = ground, earth, shaking, shake
a planet = star, sun, orbits, space, orbit
a computer = machine, data, information, device
democracy = people, government, vote
a poem = words, verse, writing, rhyme, lines
a fossil = remains, rock, animal, ancient, plant, dead
a compass = direction, north, directions
an umbrella = rain, sun
a vet = animals, animal
inflation = prices, price, money
a password = access, account, secret, word, characters, code
a database = data, information
a web browser = internet, web, websites, pages
an algorithm = steps, problem, instructions, rules, procedure
a battery = energy, electricity, electric, electrical, power
a keyboard = keys, typing, type, computer, letters
"""

LISTED = """
fruits = apple, banana, orange, pear, grape, strawberry, cherry, peach, plum, mango, lemon, lime, kiwi, melon, watermelon, pineapple, blueberry, raspberry, apricot, fig, papaya, coconut, grapefruit, avocado, tomato, date, pomegranate, guava, blackberry, cranberry
vegetables = carrot, potato, onion, tomato, pepper, cabbage, broccoli, spinach, lettuce, cucumber, pea, bean, corn, cauliflower, celery, pumpkin, garlic, leek, radish, beet, beetroot, turnip, kale, zucchini, eggplant, mushroom, squash, asparagus
colours = red, blue, green, yellow, black, white, orange, purple, pink, brown, grey, gray, violet, silver, gold, turquoise
farm animals = cow, pig, sheep, goat, horse, chicken, hen, duck, goose, turkey, donkey, rabbit, dog, cat, bull, ox, lamb
wild animals = lion, tiger, elephant, giraffe, zebra, bear, wolf, fox, monkey, rhino, rhinoceros, hippo, hippopotamus, leopard, cheetah, deer, snake, crocodile, panda, gorilla, buffalo, jaguar, eagle, rabbit, kangaroo, hyena, moose, bird, squirrel, coyote, antelope, gazelle, koala, panther, hawk, owl
European countries = Spain, Italy, France, Germany, Portugal, Greece, Poland, Norway, Sweden, Finland, Denmark, Austria, Belgium, Ireland, Hungary, Switzerland, Netherlands, the Netherlands, Russia, Ukraine, England, United Kingdom, the United Kingdom, Romania, Turkey, Croatia, Serbia, Bulgaria, Iceland, Czech Republic, Scotland
African countries = Kenya, Egypt, Nigeria, Morocco, Ghana, Ethiopia, Tanzania, Uganda, Algeria, Tunisia, Senegal, South Africa, Zimbabwe, Zambia, Sudan, Libya, Angola, Mali, Mozambique, Cameroon, Rwanda, Somalia, Botswana, Namibia, Congo
musical instruments = piano, guitar, violin, drum, drums, flute, trumpet, cello, harp, saxophone, clarinet, trombone, organ, bass, viola, accordion, banjo, oboe, tuba, horn, keyboard, ukulele, mandolin
sports = football, soccer, tennis, basketball, baseball, golf, hockey, rugby, cricket, swimming, volleyball, boxing, running, cycling, skiing, badminton, athletics, gymnastics, wrestling, softball, ice hockey, table tennis, judo, surfing, skating
drinks = water, milk, tea, coffee, juice, beer, wine, orange juice, apple juice, lemonade, cola, coke, soda, hot chocolate, whisky, vodka, gin, rum, cocoa, lemon, red wine, white wine, cider, fruit juice
planets = Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune
months = January, February, March, April, May, June, July, August, September, October, November, December
days of the week = Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday
clothes = shirt, trousers, pants, jeans, dress, skirt, jacket, coat, hat, sock, socks, shoe, shoes, sweater, scarf, gloves, t-shirt, blouse, suit, tie, boots, shorts, belt, cap, jumper
pieces of furniture = table, chair, bed, sofa, couch, desk, wardrobe, shelf, bookcase, cupboard, bench, stool, armchair, cabinet, dresser, lamp, bookshelf, mirror, drawer, coffee table, dining table
tools = hammer, saw, screwdriver, drill, pliers, wrench, axe, knife, shovel, nail, spade, chisel, ruler, scissors, tape measure, level, screw, rake
jobs = teacher, doctor, nurse, engineer, lawyer, farmer, baker, pilot, driver, cook, chef, police officer, policeman, firefighter, artist, writer, dentist, builder, carpenter, plumber, electrician, scientist, accountant, waiter, secretary, manager, soldier, actor, singer, musician, student, architect, programmer, journalist
flowers = rose, tulip, daisy, lily, sunflower, orchid, daffodil, violet, carnation, iris, lavender, poppy, peony, dahlia, marigold, chrysanthemum, jasmine, hyacinth, hibiscus, petunia, magnolia
birds = eagle, sparrow, robin, owl, crow, pigeon, parrot, duck, swan, hawk, penguin, goose, dove, raven, seagull, chicken, hen, falcon, peacock, ostrich, flamingo, woodpecker, turkey, pelican, gull, bluebird, swallow, hummingbird, canary, blackbird
parts of the body = head, arm, leg, hand, foot, eye, nose, mouth, ear, finger, toe, neck, back, heart, knee, shoulder, hair, stomach, brain, elbow, chest, skin, face, lung, lungs, liver, feet, eyes, ears, kidney, bone, tongue, tooth, teeth, hip, ankle, wrist, body, torso
school subjects = math, maths, mathematics, english, history, geography, science, art, music, physics, chemistry, biology, physical education, french, spanish, german, reading, writing, social studies, literature, economics, computer science, religion, language
vehicles = car, bus, truck, bicycle, bike, motorcycle, train, plane, airplane, boat, ship, van, taxi, tram, lorry, scooter, helicopter, tractor, ambulance, motorbike, jeep, aeroplane
languages = English, Spanish, French, German, Italian, Portuguese, Russian, Chinese, Japanese, Arabic, Greek, Dutch, Polish, Swedish, Hindi, Turkish, Korean, Latin, Norwegian, Danish, Hebrew, Swahili, Mandarin
metals = iron, gold, silver, copper, aluminium, aluminum, zinc, tin, lead, nickel, steel, platinum, titanium, bronze, brass, mercury, magnesium, lithium, sodium, chromium, cobalt, potassium
trees = oak, pine, maple, birch, elm, ash, willow, beech, cedar, palm, fir, spruce, cherry, apple, chestnut, walnut, poplar, olive, cypress, redwood, pear, hickory, magnolia
"""


def table(text: str, *, held_out: bool) -> Mapping[str, tuple[str, ...]]:
    """What is asked -> the answers that are right, of one split. A text that spells an entry twice is our bug: ValueError."""
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(text.strip().splitlines()):
        asked, _, answers = line.rpartition(" = ") if line.count(" = ") == 1 else ("", "", "")
        if not asked or asked in found:
            raise ValueError(f"not an entry of its own: {line!r}")
        if (number % 4 == 3) == held_out:
            found[asked] = tuple(answer.strip() for answer in answers.split(","))
        else:
            found.setdefault(asked, ())
    return MappingProxyType({asked: answers for asked, answers in found.items() if answers})
