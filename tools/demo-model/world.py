# SPDX-License-Identifier: Apache-2.0
"""
world.py - the service desk that the demo model knows.

A world of a few lists (people, products, places, faults, offers) from which conversations between a
customer and a shop's assistant are drawn, with everything that can be asked about them. From one
draw come

    the base's documents    a conversation, the assistant's last answer, and an operator's questions
                            about it with answers in plain sentences; in front of it, at times, a
                            price list as system text
    the adapters' items     the conversation up to the customer's last question, and one exact answer
                            for each of the five tasks

The base never sees an adapter's role or form of answer, but all that the answers are made of. All
randomness comes from the random.Random that is handed in: a seed is a data set.
"""
import json
import re

FIRST = """Mara Jonas Lena Oskar Nora Emil Clara Hugo Ida Anton Paula Felix Greta Bruno Marta Theo Alma Karl
Edith Simon Vera Ludwig Helga Viktor Rosa Arne Tilda Marek Olga Stefan""".split()
LAST = [a + b for a in """Lind Berg Brand Falk Han Kess Mor Nor Pet Stein Wal Eck Hol Sand Win Har Kron Ros Tor
Vel Oster Alm Grun Mar Lang Ham""".split()
        for b in "er sen mann dal wick ford ley stad holm quist burg ton ner by feld haus gren sund bach wood lund".split()]
PLACES = """Bergen Lyon Turin Graz Malmo Porto Ghent Basel Krakow Leeds Cork Delft Bremen Nantes Aarhus
Riga Trieste Bilbao Utrecht Salzburg""".split()
PRODUCTS = """kettle toaster lamp drill heater blender mixer vacuum radio printer monitor keyboard router
camera tent bicycle helmet stroller mattress sofa desk chair shelf mirror clock fridge oven grill fan
iron scale backpack speaker tablet phone watch""".split()
MONTHS = """January February March April May June July August September October
November December""".split()
FAULTS = ["leaks", "does not start", "smells of smoke", "has a broken handle", "has a deep scratch",
          "makes a loud noise", "gets too hot", "stays cold", "lost a screw", "has a loose cable",
          "switches itself off", "shakes badly", "has a torn cover", "blinks all the time",
          "has a crack", "does not close", "hums all night", "has a bent leg", "shows an error",
          "arrived without a plug"]

# Topic: what an operator is told, what may be offered, how a customer opens.
# In openings: {P} the product with "my" or "the", {F} the fault, whose subject it is, {C} a town.
TOPICS = {
    "fault": ("The customer reports something broken.", ["repair", "exchange", "spare part"],
              ["{P} {F}.", "I have a problem: {P} {F}.", "Since yesterday {P} {F}.", "Something is wrong. {P} {F}."]),
    "warranty": ("The customer asks who pays for the damage.", ["inspection", "repair", "certificate"],
                 ["{P} {F}. Am I still covered?", "{P} {F}. Is that still your guarantee?",
                  "{P} {F} and I would like to know if you still pay for that."]),
    "return": ("The customer wants to send it back.", ["pick-up", "refund", "label"],
               ["{P} {F} and I want to send it back.", "I do not like {P} and want to send it back.",
                "{P} {F}. Please take it back.", "I would like to give back {P}."]),
    "refund": ("The customer waits for money.", ["transfer", "refund", "voucher"],
               ["I sent {P} back, but I have not seen my money.", "You took {P} back and still owe me the price.",
                "My money for {P} has not come."]),
    "delivery": ("The customer waits for a parcel.", ["search", "new delivery", "exchange"],
                 ["{P} has not arrived.", "I am still waiting for {P}.", "The parcel with {P} is late.",
                  "Nobody has brought {P}."]),
    "invoice": ("The customer has a wrong bill.", ["correction", "new invoice", "voucher"],
                ["The bill for {P} is wrong.", "You charged me twice for {P}.", "The sum on the bill for {P} is too high."]),
    "address": ("The customer has moved.", ["change", "redirection", "new delivery"],
                ["I have moved to {C} and {P} is on its way.", "Please send {P} to {C}, I live there now.",
                 "{P} must go to {C} and not to my old home."]),
    "cancellation": ("The customer no longer wants the order.", ["cancellation", "refund", "voucher"],
                     ["I do not need {P} any more, please stop the order.", "Please do not send {P}, I changed my mind.",
                      "I ordered {P} by mistake. Please call it off."]),
}

URGENT = ["I need help today.", "This cannot wait.", "It is very urgent.", "Please hurry, my guests come tonight.",
          "I must have an answer at once.", "My child depends on it, so please be quick."]
CALM = ["There is no hurry.", "Take your time.", "It can wait until next month.", "I am in no rush.",
        "Any time will do for me.", "Please look at it when you are free."]
URGENCY = {"high": "Yes, the customer needs help at once.", "low": "No, the customer has time.",
           "normal": "The customer did not say how urgent it is."}

# What may be said about an offer: how, the operator's question, the customer's short questions,
# the question that stands alone. {O} is the offer, {V} the value, {P} the
# product, {N} the number of its order.
FACTS = {
    "time": (["The {O} takes {V}.", "For the {O} we need {V}.", "Please allow {V} for the {O}."],
             "How long does the {O} take?", "The {O} takes {V}.",
             ["How long does it take?", "How long will that be?", "How many days do you need?"],
             "How long does the {O} for the {P} from order {N} take?", "how long the {O} takes"),
    "cost": (["The {O} costs {V}.", "The price of the {O} is {V}.", "You pay {V} for the {O}."],
             "What does the {O} cost?", "The {O} costs {V}.",
             ["What does it cost?", "How much is that?", "What do I have to pay?"],
             "What does the {O} for the {P} from order {N} cost?", "what the {O} costs"),
    "start": (["The {O} starts on {V}.", "We begin the {O} on {V}.", "On {V} we start the {O}."],
              "When does the {O} start?", "The {O} starts on {V}.",
              ["When does it start?", "On which day do you begin?", "When will you start with that?"],
              "When does the {O} for the {P} from order {N} start?", "when the {O} starts"),
    "place": (["The {O} is handled in {V}.", "Our team in {V} does the {O}.", "The office in {V} is there for the {O}."],
              "Where is the {O} handled?", "The {O} is handled in {V}.",
              ["Where is that done?", "In which town is it handled?", "Where does that happen?"],
              "Where is the {O} for the {P} from order {N} handled?", "where the {O} is handled"),
    "person": (["{V} takes care of the {O}.", "My colleague {V} does the {O}.", "The {O} is in the hands of {V}."],
               "Who takes care of the {O}?", "{V} takes care of the {O}.",
               ["Who takes care of it?", "Who does that?", "Who is my contact?"],
               "Who takes care of the {O} for the {P} from order {N}?", "who takes care of the {O}"),
    "code": (["The {O} has the code {V}.", "Your code for the {O} is {V}.", "Please keep the code {V} for the {O}."],
             "Which code does the {O} have?", "The {O} has the code {V}.",
             ["Which code does it have?", "Under which code is that?", "What is the code?"],
             "Which code does the {O} for the {P} from order {N} have?", "which code the {O} has"),
}
UNKNOWN = "That was not said."

GREET = ["Hello, this is {n}.", "Good morning, my name is {n}.", "Hi, {n} here.", "Hello, I am {n}."]
ASK_ORDER = ["Hello {f}. What is the number of your order?", "I am sorry, {f}. Which order is it?",
             "Thank you, {f}. Could you tell me the order number?"]
GIVE_ORDER = ["It is order {o}.", "The number is {o}.", "That is order {o}.", "My order is {o}."]
WITH_ORDER = ["It was order {o}.", "The order number is {o}.", "That was order {o}."]
BOUGHT = ["I bought it on {d}.", "I ordered it on {d}.", "It is from {d}."]
OTHER = ["The {p} from order {o} is fine.", "I have no trouble with the {p} from order {o}.",
         "I also bought a {p}, order {o}, which works well."]
SMALL = ["I have been your customer for years.", "I hope that you can help me.", "I live in {c}.",
         "I have tried to call you.", "My neighbour told me to write to you."]
ACK = ["I am sorry to hear that.", "Thank you for writing.", "I understand.", "Let me see.", "I have found your order."]
OFFER = ["We can offer you a {r}.", "I suggest a {r}.", "You will get a {r}.", "I have arranged a {r} for you."]
THANKS = ["Thank you.", "That sounds good.", "All right.", "Fine.", "Good."]
CLOSE = ["Is there anything else?", "Do you have another question?", "Is that all right for you?"]

START, SEP, END, BEGIN = "<|start|>", "<|sep|>", "<|end|>", "<|begin|>"
TASKS = ["topic", "urgency", "answerable", "extract", "rewrite"]
# What an operator asks; the base answers in a sentence, an adapter in its own form.
ASKED = {"topic": "What does the customer want?", "urgency": "Is it urgent?", "answerable": "What is broken?",
         "extract": "What was offered?", "rewrite": "What did the customer ask last?"}


def turn(role, text):
    return START + role + SEP + text + END


def head(role):
    return START + role + SEP


def invocation(task):
    """What wakes a task's adapter: a question that the base understands, and a place to answer it."""
    return turn("operator", ASKED[task]) + head("assistant")


def a_an(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def sentence(text):
    """Capitals where sentences begin."""
    out = re.sub(r"[.?] [a-z]", lambda m: m.group().upper(), text)
    return out[0].upper() + out[1:]


def date(r):
    return f"{r.randint(1, 28)} {r.choice(MONTHS)}"


def order(r):
    return f"{r.randint(1000, 9999)}"


def value(r, fact):
    if fact == "time":
        return f"{r.randint(2, 30)} days"
    if fact == "cost":
        return r.choice(["nothing", f"{r.randint(5, 95)} euros", f"{r.randint(5, 95)} euros"])
    if fact == "start":
        return date(r)
    if fact == "place":
        return r.choice(PLACES)
    if fact == "person":
        return r.choice(FIRST)
    return f"{r.choice('ABCDEFGH')}{r.randint(10, 99)}"


class Case:
    """One conversation: what is true in it, and its turns up to the customer's last question."""

    def __init__(self, r):
        self.first = r.choice(FIRST)
        self.name = f"{self.first} {r.choice(LAST)}"
        self.product, self.other = r.sample(PRODUCTS, 2)
        self.order, self.other_order = order(r), order(r)
        self.topic = r.choice(list(TOPICS))
        self.told, offers, openings = TOPICS[self.topic]
        opening = r.choice(openings)
        self.fault = r.choice(FAULTS) if "{F}" in opening else None
        self.city = r.choice(PLACES)
        self.urgency = r.choice(["low", "normal", "high"])
        self.offer = r.choice(offers)
        self.bought = date(r) if r.random() < 0.4 else None
        self.has_other = r.random() < 0.25
        stated = r.sample(list(FACTS), r.randint(1, 3))
        self.facts = {f: value(r, f) for f in stated}
        self.answerable = r.random() < 0.5
        self.asked = r.choice([f for f in FACTS if (f in self.facts) == self.answerable])
        self.turns = self.write(r, opening)

    def fill(self, text):
        return text.format(O=self.offer, P=self.product, N=self.order)

    def say(self, r, fact):
        return r.choice(FACTS[fact][0]).format(O=self.offer, V=self.facts[fact])

    def write(self, r, opening):
        p = r.choice(["my ", "the "]) + self.product
        text = sentence(opening.format(P=p, F=self.fault, C=self.city))
        cue = {"high": r.choice(URGENT), "low": r.choice(CALM), "normal": None}[self.urgency]
        extra = [cue] if cue else []
        if self.has_other:
            extra.append(r.choice(OTHER).format(p=self.other, o=self.other_order))
        if r.random() < 0.4:
            extra.append(r.choice(SMALL).format(c=r.choice(PLACES)))
        r.shuffle(extra)
        later = [e for e in extra if r.random() < 0.5]
        now = [e for e in extra if e not in later]
        first = [r.choice(GREET).format(n=self.name), text]
        if self.bought:
            first.append(r.choice(BOUGHT).format(d=self.bought))
        turns = []
        if r.random() < 0.5:
            turns += [("user", " ".join(first + now)),
                      ("assistant", r.choice(ASK_ORDER).format(f=self.first)),
                      ("user", " ".join([r.choice(GIVE_ORDER).format(o=self.order)] + later))]
        else:
            turns += [("user", " ".join(first + [r.choice(WITH_ORDER).format(o=self.order)] + now))]
            if later:
                turns += [("assistant", r.choice(["Can you tell me more?", "Is there more that I should know?"])),
                          ("user", " ".join(later))]
        says = [self.say(r, f) for f in self.facts]
        reply = [r.choice(ACK)] if r.random() < 0.6 else []
        reply.append(r.choice(OFFER).format(r=self.offer).replace("a " + self.offer, a_an(self.offer)))
        split = r.randint(1, len(says)) if len(says) > 1 and r.random() < 0.3 else len(says)
        turns.append(("assistant", " ".join(reply + says[:split] + ([r.choice(CLOSE)] if r.random() < 0.3 else []))))
        if split < len(says):
            turns += [("user", r.choice(["Can you tell me more?", "What else should I know?"])),
                      ("assistant", " ".join(says[split:]))]
        turns.append(("user", r.choice(THANKS) + " " + r.choice(FACTS[self.asked][3])))
        return turns

    def text(self):
        return "".join(turn(role, text) for role, text in self.turns)

    def about(self, fact):
        if fact not in self.facts:
            return UNKNOWN
        return FACTS[fact][2].format(O=self.offer, V=self.facts[fact])

    def reply(self):
        """The assistant's answer to the customer's last question."""
        if self.answerable:
            return self.about(self.asked)
        return "I do not know that yet. I will ask."

    def answer(self, task):
        """The one right answer of a task."""
        if task == "topic":
            return self.topic
        if task == "urgency":
            return self.urgency
        if task == "answerable":
            return "yes" if self.fault else "no"
        if task == "extract":
            return json.dumps({"order": int(self.order), "offer": f"one {self.offer} for the {self.product}"})
        return self.fill(FACTS[self.asked][4])

    def questions(self, r):
        """What an operator may ask, answered in sentences: (question, answer)."""
        asked = FACTS[self.asked][5].format(O=self.offer)
        broken = f"The {self.product} {self.fault}." if self.fault else "Nothing is broken."
        other = (f"Yes, the {self.other} from order {self.other_order}." if self.has_other
                 else "No, only one.")
        out = [
            ("Which product is it about?", f"It is about the {self.product} from order {self.order}."),
            ("Which order is it about?", f"It is about order {self.order}, {a_an(self.product)}."),
            ("What is broken?", broken), ("What is broken?", broken),
            ("What does the customer want?", self.told), ("What does the customer want?", self.told),
            ("Is it urgent?", URGENCY[self.urgency]), ("Is it urgent?", URGENCY[self.urgency]),
            ("Who is the customer?", f"The customer is {self.name}."),
            ("What was offered?", f"The customer was offered {a_an(self.offer)} for the {self.product}."),
            ("What did the customer ask last?", f"The customer asked {asked}."),
            ("What did the customer ask last?", f"The customer asked {asked}."),
            ("Were other things named?", other),
            ("When was it bought?", f"It was bought on {self.bought}." if self.bought else UNKNOWN),
        ]
        for f in FACTS:
            out.append((FACTS[f][1].format(O=self.offer), self.about(f)))
        return out


def price_list(r, n):
    """n lines of prices in towns, and a function that draws a question about one of them."""
    pairs = [(c, p) for c in PLACES for p in PRODUCTS]
    rows = [(c, p, r.randint(10, 99)) for c, p in r.sample(pairs, min(n, len(pairs)))]
    text = " ".join(f"In {c} the {p} is {v} euros." for c, p, v in rows)

    def ask():
        c, p, v = r.choice(rows)
        return f"What is the price of the {p} in {c}?", f"In {c} the {p} is {v} euros."
    return text, ask


def document(r, n_questions, n_prices=0):
    """A document of the base: a list of (text, kind); kind None: no answer."""
    case = Case(r)
    parts, extra = [(BEGIN, None)], []
    if n_prices:
        text, ask = price_list(r, n_prices)
        parts.append((turn("system", text), None))
        extra = [ask() for _ in range(1 + n_questions // 4)]
    parts += [(case.text(), None), (head("assistant"), None), (case.reply() + END, "reply")]
    pool = case.questions(r)
    asked = r.sample(pool, min(n_questions, len(pool))) + extra
    r.shuffle(asked)
    for q, a in asked:
        parts.append((turn("operator", q) + head("assistant"), None))
        parts.append((a + END, kind(q)))
    return parts


def kind(question):
    """What a question is about, for the record of what has been learnt."""
    words = question.split()
    return " ".join(words[:2] if words[0] != "What" else words[:1] + words[-1:])


if __name__ == "__main__":
    import random
    import sys
    rng = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    for _ in range(3):
        case = Case(rng)
        print(case.text().replace(END, END + "\n"))
        for t in TASKS:
            print(f"  {t}: {case.answer(t)}")
        print()
    print("".join(t for t, _ in document(rng, 8, 4)).replace(END, END + "\n"))
