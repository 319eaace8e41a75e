"""The words that say what a prompt asks for: the only place with words of a language.

`text.py` counts them as features. A word that is added or removed changes the features, so `row.FEATURES_VERSION` has to be increased.
"""

import re
from typing import Final

COUNT_WISH: Final = re.compile(
    r"\b(\d{1,4}|one|two|three|four|five|six|seven|eight|nine|ten|fifteen|twenty|hundred)[- ]"
    r"(?:\w+[- ]){0,2}(words?|sentences?|paragraphs?|pages?|lines?|characters?|tokens?|bullets?|points?|items?|stanzas?|minutes?)\b"
)
THINGS: Final = re.compile(r"\b(\d{1,3}|two|three|four|five|six|seven|eight|nine|ten|fifteen|twenty)(?: \w+){0,2} \w+s\b")
NUMBER_WORDS: Final = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "fifteen": 15, "twenty": 20, "hundred": 100,
}  # fmt: skip
# Tokens that one of a unit is worth, roughly.
UNIT_TOKENS: Final = {
    "word": 1.35, "sentence": 25, "paragraph": 110, "page": 550, "line": 14, "character": 0.25, "token": 1, "bullet": 25, "point": 25,
    "item": 15, "stanza": 40, "minute": 200,
}  # fmt: skip

# Groups of words; a feature counts how many of its words occur. Verbs of the first words matter most, see `FIRST`.
GROUPS: Final[dict[str, str]] = {
    "story": "story poem essay article blog novel fiction tale narrative screenplay song lyrics speech dialogue sonnet scene chapter",
    "letter": "letter email message memo tweet post caption headline title slogan tagline ad advertisement haiku limerick joke name names",
    "code": "code function script python javascript java sql html css regex program algorithm api class react bash query c++ json",
    "table": "table csv spreadsheet columns column rows chart json yaml xml format markdown",
    "list": "list lists enumerate bullet bullets outline steps ideas ways tips examples reasons items suggestions recommendations",
    "translate": "translate translation french spanish german english chinese japanese italian russian portuguese latin",
    "classify": "classify categorize identify label sentiment true false correct yes choose select odd which determine detect tag",
    "edit": "edit rewrite rephrase paraphrase correct fix proofread grammar grammatical punctuation replace convert change reword"
    " transform",
    "short": "short brief briefly concise single simple quick summarize summary tldr shorten one only just answer",
    "long": "detailed detail long comprehensive thorough complete full step elaborate extensive in-depth everything guide tutorial plan",
    "explain": "explain describe discuss why how elaborate analyze evaluate compare contrast difference advantages benefits pros cons"
    " effects",
    "question": "what who when where which whose is are was do does did can could",
    "math": "calculate compute solve equation sum multiply divide area volume average probability percent number squared root fraction",
    "create": "create write generate compose design develop make construct draft build produce invent brainstorm come imagine tell",
    "extract": "extract find list name give provide fill complete sort arrange order rank match add insert remove delete",
    "continue": "continue more again next keep going elaborate expand rest further",
    "thanks": "thanks thank great ok okay yes no good nice hello hi",
    "business": "business company market marketing product customers customer brand campaign strategy sales proposal plan project",
    "second_person": "you your yourself act pretend imagine role assistant",
    "first_person": "i my me we our us",
    "compare": "compare contrast difference differences similarities versus vs between better",
    "word_play": "synonym synonyms antonym antonyms rhyme rhymes word words sentence sentences phrase letters spell acronym",
}
GROUPS_OF: Final[dict[str, tuple[int, ...]]] = {}
for _at, _words in enumerate(GROUPS.values()):
    for _word in _words.split():
        GROUPS_OF[_word] = (*GROUPS_OF.get(_word, ()), _at)

# The word that opens an instruction, in classes of verbs that are answered at about the same length; 0 is any other.
FIRST: Final[dict[str, int]] = {
    word: number
    for number, words in enumerate(
        (
            "write compose draft author", "create design develop construct build make", "generate produce", "explain", "describe",
            "summarize condense", "rewrite rephrase reword paraphrase restate", "edit correct fix proofread revise", "translate",
            "classify categorize label", "identify determine detect spot recognize", "name", "list enumerate", "give provide suggest offer",
            "find search", "calculate compute solve evaluate", "convert transform change turn", "compare contrast", "what what's", "how",
            "why", "who whose", "when where", "which choose select pick",
            "is are was were do does did can could should would will has have",
            "tell imagine pretend act", "analyze analyse discuss assess", "outline plan propose", "add insert replace remove fill complete",
            "sort arrange order rank organize", "continue go keep next more", "i i'm my we", "you your", "please", "the a an in",
            "if given",
            "predict estimate guess", "come brainstorm think", "use using", "arrange match combine join", "extract",
        ),
        start=1,
    )
    for word in words.split()
}  # fmt: skip
