"""The names, items and places in the sentences of intaglio-json, one list for training and one held out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """The entities of one split. Every list of one split is disjoint from the same list of the other."""

    first_names: tuple[str, ...]
    last_names: tuple[str, ...]
    items: tuple[str, ...]  # singular; the plural adds "s"
    cities: tuple[str, ...]
    titles: tuple[str, ...]
    places: tuple[str, ...]
    domains: tuple[str, ...]


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


TRAIN_WORDS = Words(
    first_names=_split(
        "Nora, Liam, Aisha, Tom, Elena, Ravi, Mia, Jonas, Grace, Omar, Hannah, Luca, Sofia, Peter, Yuki, Carmen, "
        "Daniel, Fatima, George, Ingrid, Victor, Ana, Samuel, Leila, Martin, Chloe, Hugo, Zara, Felix, Rosa, Ben, "
        "Emma, Kofi, Alice, Diego, Vera, Ethan, Priya, Stefan, Maya, Noah, Olga, Paul, Amina, Simon, Julia, "
        "Marcus, Eva, Adrian, Beatriz, Cedric, Dalia, Edgar, Farid, Gloria, Henrik, Imani, Jorge, Katya, Lorenzo, "
        "Miriam, Nikhil, Ophelia, Pablo, Quentin, Rania, Sven, Teresa, Ulrich, Valeria, Walter, Ximena, Yusuf, "
        "Zoe, Bridget, Cosima, Dmitri, Esther, Fiona, Gustav, Harriet, Idris, Jasmine, Kenji, Lydia, Mohamed, "
        "Nadia, Oscar, Paula, Rashid, Selma, Thomas, Uma, Vikram, Willem, Yara, Tobias, Abigail, Caleb, Doris, "
        "Emil, Frida, Gavin, Hope, Ivan, Joyce, Karim, Linda"
    ),
    last_names=_split(
        "Patel, Schmidt, Okafor, Rossi, Nguyen, Larsen, Garcia, Novak, Brown, Haddad, Kim, Jensen, Silva, Murphy, "
        "Tanaka, Costa, Weber, Ali, Moreau, Lind, Petrov, Santos, Clark, Farah, Olsen, Dubois, Wright, Khan, "
        "Bauer, Moreno, Hughes, Berg, Mensah, Cooper, Ruiz, Ivanova, Scott, Sharma, Keller, Young, Baker, Popov, "
        "Evans, Diallo, Abbott, Barros, Chandra, Demir, Eriksen, Fontaine, Goldberg, Hoffmann, Ibrahim, Jovanovic, "
        "Kowalski, Lindqvist, Marquez, Nakamura, Oduya, Pereira, Quinn, Rahman, Sorensen, Takahashi, Underwood, "
        "Vargas, Whitfield, Xu, Yilmaz, Zhang, Ferreira, Campbell, Dominguez, Everett, Fitzgerald, Gallagher, "
        "Hashimoto, Iyer, Johansson, Kaplan, Lombardi, McCarthy, Novotny, Ortega, Petersen, Rosenberg, Stewart, "
        "Thompson, Vasquez, Winther, Zimmermann, Achterberg, Reed, Blum, Chen, Duarte, Frost, Greco, Holt, Ito"
    ),
    items=_split(
        "desk lamp, coffee mug, notebook, office chair, backpack, water bottle, phone case, wool blanket, garden "
        "hose, picture frame, candle, wireless mouse, cutting board, rain jacket, tea kettle, paint roller, door "
        "handle, yoga mat, ceramic bowl, travel pillow, bike helmet, bookshelf kit, wall clock, hand towel, sketch "
        "pad, flower pot, silver ring, leather wallet, camping tent, steel ladder, pencil, red balloon, charger, "
        "umbrella, toaster, apple pie, paper lantern, printer cartridge, laptop stand, mountain bike, wooden "
        "spoon, carpet, winter coat, rubber boot, cheese grater, salad bowl, tablet stand, felt hat, sleeping bag, "
        "fishing rod, linen curtain, oak stool, hair dryer, baking tray, chess board, drum stick, pillow cover, "
        "bread basket, hiking boot, soap holder, sewing kit, swimming cap, tennis racket, tin whistle, violin bow, "
        "wine cooler, egg timer, headphone, calculator, magazine, blender, saddle, hammock, lemon tart, rice "
        "cooker, ring binder, pocket torch, steam iron, sun hat, snow globe, train ticket, velvet curtain, cotton "
        "scarf, copper pan, dog collar, dinner plate, film poster, glass jar, gift card, guitar case, ice skate, "
        "key chain, mirror, stapler, thermometer, trumpet, vacuum cleaner, whiteboard"
    ),
    cities=_split(
        "Lisbon, Berlin, Oslo, Nairobi, Toronto, Madrid, Osaka, Dublin, Chicago, Prague, Lima, Cairo, Hamburg, "
        "Denver, Athens, Manila, Vienna, Boston, Geneva, Lagos, Sydney, Porto, Warsaw, Seattle, Mumbai, Bristol, "
        "Tunis, Dallas, Cologne, Florence, Naples, Turin, Venice, Malaga, Valencia, Brussels, Antwerp, Copenhagen, "
        "Gothenburg, Krakow, Bucharest, Marseille, Lyon, Seoul, Hanoi, Jakarta, Santiago, Caracas, Quito, "
        "Montevideo, Austin, Phoenix, Atlanta, Ottawa, Vancouver, Calgary, Glasgow, Cardiff, Belfast, Sheffield, "
        "Rotterdam, Utrecht, Salzburg, Basel, Zagreb, Belgrade, Sofia, Tallinn, Riga, Vilnius, Kyiv, Ankara, "
        "Amman, Casablanca, Kampala, Dakar, Durban, Perth, Auckland, Nagoya, Delhi, Kolkata, Karachi, Dhaka"
    ),
    titles=_split(
        "pottery workshop, team meeting, book club, jazz concert, budget review, chess tournament, yoga class, "
        "product launch, staff training, wine tasting, photo exhibition, science fair, choir rehearsal, job "
        "interview, charity auction, dance lesson, safety briefing, movie night, poetry reading, design sprint, "
        "birthday party, parents evening, cooking class, planning session, history lecture, art opening, sales "
        "call, quiz night, farm visit, picnic, webinar, regatta, barbecue, marathon, tasting menu, tango evening, "
        "swim meet, welcome lunch, goodbye party, town meeting, flower show, coding course, dinner dance, fire "
        "drill, first aid training, garden tour, guitar lesson, harvest festival, karate class, knife skills "
        "class, language exchange, museum tour, opera premiere, painting circle, panel discussion, pension "
        "seminar, press conference, puppet theatre, radio interview, retirement lunch, robotics club, sewing "
        "circle, shareholder meeting, ski trip, spelling contest, street market, summer camp, tax workshop, "
        "theatre rehearsal, trade fair, violin recital, volunteer day, wedding rehearsal, writing course"
    ),
    places=_split(
        "Harbour Hall, Room 12, the town library, Cafe Luna, the Green Room, Studio 5, Maple Street School, the "
        "museum, Hotel Astoria, the main office, Riverside Park, Room 204, the old theatre, the sports centre, "
        "Cafe Central, Building B, the Blue Lounge, Oak Street Gallery, the city hall, Studio 9, the conference "
        "centre, Room 31, Victory Hall, Room 8, the public library, Cafe Roma, the White Room, Studio 7, Elm "
        "Street School, the cinema, Hotel Europa, the head office, the botanical garden, Room 118, the community "
        "hall, Building F, the Silver Lounge, Park Road Gallery, the harbour office, the rowing club, Room 52, the "
        "town square, Kings Hall, Mill Lane School, the river bank, Cafe Verona, the art centre, Studio 11"
    ),
    domains=_split(
        "example.com, mail.com, acme.org, northwind.io, bluebird.net, studio.co, fastpost.com, greenleaf.org, "
        "sunrise.io, webbox.net, citymail.com, openlab.org, example.net, letterbox.com, hillside.io, oaktree.net, "
        "swiftmail.co, meadow.com, harbour.org, redwood.dev, inbox.eu, paperplane.io, maple.net, lakeside.co, "
        "ironbridge.org, quarry.com, seabird.net"
    ),
)

HELD_OUT_WORDS = Words(
    first_names=_split(
        "Clara, Isaac, Naomi, Pavel, Ruth, Tariq, Wendy, Xavier, Lucia, Bruno, Helga, Andre, Sana, Kurt"
    ),
    last_names=_split("Fischer, Adeyemi, Romano, Park, Hansen, Lopez, Walker, Yamada, Bianchi, Turner, Cohen, Nowak"),
    items=_split(
        "bread knife, reading lamp, ski jacket, guitar strap, soup plate, cotton shirt, tool box, garden "
        "chair, photo album, bath towel, running shoe, coffee grinder, kitchen scale, snow shovel, velvet "
        "cushion, keyboard"
    ),
    cities=_split("Rome, Helsinki, Accra, Montreal, Seville, Kyoto, Leeds, Houston, Budapest, Bogota, Munich, Zurich"),
    titles=_split(
        "board meeting, gardening workshop, piano recital, hackathon, film festival, press briefing, "
        "knitting circle, swimming lesson, career fair, farewell dinner, tax seminar, language course"
    ),
    places=_split(
        "Victoria Hall, Room 47, the public garden, Cafe Milano, the Red Room, Studio 3, Elm Road School, "
        "the gallery, Hotel Bristol, the branch office, Building D, the community centre"
    ),
    domains=_split("example.org, postbox.com, riverbank.io, redmaple.net, quickmail.co, orchard.com"),
)

DAYS = _split("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
NUMBER_WORDS = _split(
    "one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, "
    "fifteen, sixteen, seventeen, eighteen, nineteen, twenty"
)
