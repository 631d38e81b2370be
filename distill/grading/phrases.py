"""Find where a text announces its answer, in many languages: "the answer is", "#### ", "<answer>", "is our answer".

What an announcement states lies between its end and the next mark. The mark in "So the answer is 42.":

    Mark(start=3, end=16, kind="announcement")
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

Kind = Literal[
    "box", "tag", "final", "announcement", "option", "hashes", "closing", "label", "statement", "last_line",
    "last_number", "whole_text",
]  # fmt: skip
"""What makes a place in a text a candidate for its final answer (docs/grading.md describes each kind)."""


class Mark(NamedTuple):
    """A phrase that announces an answer, without the answer."""

    start: int
    end: int
    kind: Kind


_VERB = (
    r"(?:(?:is|are|was|were|equals|becomes)\b|(?:would|should|must|will|could|can|has\s{1,20}to|have\s{1,20}to)"
    r"\s{1,20}(?:only\s{1,20})?be\b|(?:comes|works|turns)\s{1,20}out\s{1,20}(?:to\s{1,20}be|as)\b)"
)
_SIGN = r"(?:[:\uff1a=\u2192]|[-=]>|\\(?:right|Right)arrow\b)"
_DECORATED = r"[*_`\"'\u2019\u201d]{0,4}"
# "the answer we are looking for" is a name of the answer: its verb announces nothing.
_SOUGHT = (
    r"(?:\s{1,20}(?:that|which))?\s{1,20}(?:we|I|you)(?:\s{1,20}(?:are|were)|['\u2019]re)\s{1,20}"
    r"(?:(?:looking|searching|asked|asking)\s{1,20}for|after|seeking)\b"
)
_TO_WHAT = rf"(?!{_SOUGHT})\s{{1,20}}(?:to|for|of|in|here|that|we)\b[^.,:;\n$\\=]{{0,80}}?"
_ADVERB = r"(?:,?\s{1,20}(?:therefore|thus|then|hence|indeed|now)\b,?)?"
_BRACKETED = r"(?:\s{0,20}\([^()\n]{1,40}\))?"
_AFTER_ANSWER = re.compile(
    rf"s?{_DECORATED}(?:\s{{1,20}}(?:choice|option|letter)\b)?{_BRACKETED}(?:{_SOUGHT})?"
    rf"(?:{_ADVERB}{_DECORATED}\s{{0,20}}(?:{_VERB}|{_SIGN})|{_TO_WHAT}{_ADVERB}\s{{0,20}}{_VERB})",
    re.IGNORECASE,
)
_AFTER_OPTION = re.compile(
    rf"{_DECORATED}{_BRACKETED}{_ADVERB}{_DECORATED}\s{{0,20}}(?:{_VERB}|{_SIGN})", re.IGNORECASE
)
_HEADING_START = re.compile(r"(?:^|\n)[ \t>]*(?:#{1,6}[ \t]*)?[*_]{0,3}(?:the[ \t]+)?(?:final|correct)?[ \t]*\Z", re.I)
_HEADING_END = re.compile(r"[*_]{0,3}[ \t]*\n")
_HEDGED = re.compile(
    r"\b(?:if|whether|suppose|supposing|assum\w+|unless|hope|(?:might|may|could|would|can|tempted\s{1,20}to|to)\s{1,20}"
    r"(?:think|say|guess|believe|assume|conclude|claim|expect))\s{1,20}(?:that\s{1,20})?(?:the|this|that|my|our|your|its|an?)?\s{0,20}"
    r"(?:\w+\s{1,20})?\Z",
    re.IGNORECASE,
)
_CLOSED = re.compile(
    r"\b(?:is|are|be)\s{1,20}(?:indeed\s{1,20}|thus\s{1,20}|therefore\s{1,20})?(?:the|our|my)\s{1,20}(?:\w+\s{1,20})?\Z",
    re.IGNORECASE,
)
_IS_FINAL = re.compile(r"\bfinal\s+\Z", re.IGNORECASE)
_WORD_BEFORE = re.compile(r"[A-Za-z0-9_]\Z")

# Each alternative begins with a literal letter, so that re skips quickly to the next possible match.
_KEYS = re.compile(
    "answer|Answer|ANSWER|Ans[.]?[ \\t]{0,5}[:=]|ANS[.]?[ \\t]{0,5}[:=]|ans[.]?[ \\t]{0,5}[:=]"
    "|option|Option|OPTION|choice|Choice|CHOICE|closest|Closest"
    "|correct (?:one|statement|response|letter|match)\\b|right (?:one|response)\\b|best (?:one|response|match)\\b"
    "|final (?:result|solution|response)|Final (?:result|solution|response|Result|Solution)"
    "|choose|select|pick|Choose|Select|Pick|go with|going with"
)
# "choose a pair" is prose, "choose A" is a choice.
_CHOOSES = re.compile(
    r"\s{0,20}:?\s{1,20}(?!(?-i:a\s{1,20}[a-z]{2}))(?=(?:option|choice|answer|letter)?\s*[*_]{0,2}\(?[A-Z]\b)",
    re.IGNORECASE,
)

# Phrases of other languages, each with its verb or colon; colons may be full-width.
_COLON = r"\s*[:\uff1a=]"
_FOREIGN = re.compile(
    "|".join((
        # Romance and Germanic languages
        rf"(?:respuesta|resultado\s+final|opci[oó]n|alternativa)(?:\s+(?:final|correcta|correcto))*(?:\s+(?:es|son|sería)\b|{_COLON})",
        rf"(?:réponse|reponse|résultat\s+final)(?:\s+(?:finale?|correcte|exacte))*(?:\s+(?:est|sont|serait)\b|{_COLON})",
        rf"(?:antwort|endergebnis|lösung)(?:\s+(?:lautet|ist|wäre)\b(?:\s+(?:also|daher|somit)\b)?|{_COLON})",
        rf"(?:risposta|risultato\s+finale|opzione)(?:\s+(?:finale|corretta|esatta|giusta))*(?:\s+(?:è|sono|sarà)(?!\w)|{_COLON})",
        rf"(?:resposta|resultado\s+final|opção|alternativa)(?:\s+(?:final|correta|certa))*(?:\s+(?:é|são|será|seria)(?!\w)|{_COLON})",
        rf"(?:antwoord|svaret|svar|răspunsul|răspuns|resposta)(?:\s+(?:correct|final|corect))*(?:\s+(?:is|är|er|este|és)\b|{_COLON})",
        # Slavic, Baltic, Finno-Ugric, Turkic, Greek
        rf"(?:ответ|відповідь|отговор(?:ът)?)(?:ом)?(?:\s+(?:является|равен|будет|это|є|е)(?!\w)|\s*[-\u2013\u2014]\s|{_COLON})",
        rf"(?:odpowiedź|odpowiedzią|odpověď|odpoveď|odgovor)(?:\s+(?:to|jest|brzmi|je)\b|{_COLON})",
        rf"(?:vastaus|válasz|cevap|yanıt|cavab|απάντηση)(?:\s+(?:on|είναι)(?!\w)|{_COLON})",
        # South and South-East Asia, Africa, the Middle East
        rf"(?:đáp án|câu trả lời|jawaban(?:nya)?|jawapan(?:nya)?|jibu)(?:\s+(?:là|adalah|ialah|ni)(?!\w)|{_COLON})",
        rf"(?:الإجابة|الاجابة|الجواب|جواب|پاسخ|התשובה|תשובה)(?:\s+\w+){{0,2}}?(?:\s+(?:هي|هو|היא|הוא)(?!\w)|{_COLON})",
        rf"(?:उत्तर|उत्तर है|উত্তর|సమాధానం|பதில்|ఉత్తరం)(?:\s*(?:है|হল|হলো)(?!\w)|{_COLON}|\s+(?=[\d$\\(]))",
        r"(?:คำตอบ)(?:ที่ถูกต้อง|สุดท้าย)?\s*(?:คือ|เป็น|:)",
        # Chinese, Japanese, Korean
        r"(?:答案|正解|答)(?:应该|應該|应|應|就|即)?\s*(?:是|为|為|[:\uff1a=])",
        r"(?:故|应|應|所以|因此)?(?:选|選)(?:择|擇)?(?:项|項)?(?:是|为|[:\uff1a])?\s*(?=[(\uff08]?[A-J](?![A-Za-z]))",
        r"(?:答え|答|正解|解答|回答)\s*(?:は|[:\uff1a＝])",
        r"(?:정답|답변|답)\s*(?:은|는|[:\uff1a])",
    )),
    re.IGNORECASE,
)  # fmt: skip
# Every phrase of _FOREIGN contains one of these; a substring search is far quicker than the pattern.
_ASCII_HINTS = (
    "espuesta", "ESPUESTA", "esultado final", "lternativa", "eponse", "REPONSE", "ntwort", "NTWORT", "ndergebnis",
    "isposta", "isultato finale", "esposta", "ntwoord", "Svar", "svar", "dgovor", "astaus", "evap", "avab", "awaban",
    "awapan", "ibu ni", "ibu:", "pcion", "pzione",
)  # fmt: skip
_OTHER_HINTS = (
    "pción", "éponse", "ÉPONSE", "ésultat final", "ösung", "pção", "ăspuns", "твет", "ТВЕТ", "ідповід",
    "тговор", "dpowied", "dpověď", "dpoveď", "álasz", "anıt", "πάντηση", "áp án", "âu trả lời", "جابة", "جواب", "پاسخ",
    "תשובה", "उत्तर", "উত্তর", "సమాధానం", "பதில்", "คำตอบ", "答", "正解", "选", "選", "답",
)  # fmt: skip
_HASHES = re.compile(r"^[ \t]*#{4}(?!#)[ \t]*", re.MULTILINE)
_LABEL = re.compile(r"^[ \t>*_]{0,6}A[*_]{0,2}:[*_]{0,2}[ \t]*", re.MULTILINE)
_TAG = re.compile(r"<(/?)\s*(?:answer|final[_ ]?answer|ans)\s*>", re.IGNORECASE)
_BEFORE_CHARS = 60


def find_announcements(text: str, start: int = 0) -> list[Mark]:
    """Return the phrases that announce an answer from `start` on, sorted by place and without overlaps."""
    marks = list(_english(text, start))
    hints = _ASCII_HINTS if text.isascii() else _ASCII_HINTS + _OTHER_HINTS
    if any(text.find(hint, start) >= 0 for hint in hints):
        found = _FOREIGN.finditer(text, start)
        marks += (Mark(*m.span(), "announcement") for m in found if not _is_inside_a_word(text, m.start()))
    if text.find("####", start) >= 0:
        marks += (Mark(*m.span(), "hashes") for m in _HASHES.finditer(text, start))
    if text.find("A:", start) >= 0 or text.find("A**:", start) >= 0:
        marks += (Mark(*m.span(), "label") for m in _LABEL.finditer(text, start))
    marks.sort()
    kept: list[Mark] = []
    for mark in marks:
        if not kept or mark.start >= kept[-1].end:
            kept.append(mark)
    return kept


def _is_inside_a_word(text: str, place: int) -> bool:
    """Return whether Latin, Greek or Cyrillic letters are on both sides."""
    pair = text[max(0, place - 1) : place + 1]
    return len(pair) == 2 and all(char.isalpha() and char < "\u0530" for char in pair)


def _english(text: str, start: int) -> Iterator[Mark]:
    for key in _KEYS.finditer(text, start):
        word, place = key[0].lower(), key.start()
        before = text[max(0, place - _BEFORE_CHARS) : place]
        if _WORD_BEFORE.search(before):
            continue
        if word in ("choose", "select", "pick", "go with", "going with"):
            if chosen := _CHOOSES.match(text, key.end()):
                yield Mark(place, chosen.end(), "option")
        elif word == "answer":
            yield from _answer(text, key, before)
        elif word[-1] in ":=":  # "Ans:"
            yield Mark(place, key.end(), "announcement")
        elif (said := _AFTER_OPTION.match(text, key.end())) and not _HEDGED.search(before):
            yield Mark(place, said.end(), "announcement" if word.startswith("final") else "option")


def _answer(text: str, key: re.Match[str], before: str) -> Iterator[Mark]:
    """Yield the mark of the word "answer": before "is …", as a heading, or after "… is the"."""
    said = _AFTER_ANSWER.match(text, key.end())
    if said is None:
        heading = _HEADING_END.match(text, key.end()) if _HEADING_START.search(before) else None
        if heading:
            yield Mark(key.start(), heading.end(), "final" if _IS_FINAL.search(before) else "announcement")
        elif closed := _CLOSED.search(before):
            place = key.start() - len(before) + closed.start()
            yield Mark(place, key.end(), "closing")
    elif not _HEDGED.search(before):
        yield Mark(key.start(), said.end(), "final" if _IS_FINAL.search(before) else "announcement")


def find_tags(text: str) -> list[tuple[int, int, int, int]]:
    """Return (start, start of the content, end of the content, end) of each `<answer>…</answer>`.

    The last one may lack its end: engines that stop at `</answer>` omit it.
    """
    if "<" not in text:
        return []
    found = []
    opened: re.Match[str] | None = None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            opened = tag
        elif opened is not None:
            found.append((opened.start(), opened.end(), tag.start(), tag.end()))
            opened = None
    if opened is not None:
        found.append((opened.start(), opened.end(), len(text), len(text)))
    return found
