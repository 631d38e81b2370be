"""Grade multiple choice: find the option that a text chooses.

Example: `"The answer is **(B)** Paris."` with the options `["London", "Paris"]` is right if `"B"`, `"Paris"` or `"b)"`
is expected.
"""

import re
from collections.abc import Iterator, Sequence

from distill.core.records import Problem
from distill.grading.boxes import box_groups, find_boxes, is_blank
from distill.grading.extraction import MAX_READ, Candidate, Found, Reader, passages_of, read, taken_back
from distill.grading.options import choice_of, letter_exists, named_by_text, options_of, plain, same_texts
from distill.grading.passages import Reading
from distill.grading.phrases import Kind, find_announcements, find_tags

RANKS: tuple[tuple[Kind, ...], ...] = (
    ("box", "tag", "final", "announcement", "option", "hashes", "closing", "label"),
    ("statement",),
    ("last_line",),
)
"""Kinds of candidates, the strongest first. Within a rank, the last candidate that names an option counts."""

MAX_PASSAGE_CHARS = 400
MAX_LINE_CHARS = 300
MAX_CHOSEN = 40
"""Maximum number of candidates examined for whether they name every option."""

MIN_OPTIONS_FOR_ALL = 3
"""Minimum number of options for which a text that chooses each of them in turn is wrong."""

_SKIPPED = re.compile(
    r"(?:[\s:\uff1a*_`\"'\u2018\u2019\u201c\u201d\u300c\u300e\u3010>=\u2192$]|\\\(|\\\[|\\(?:text|textbf|mathrm|mathbf)\s*\{)*+"
)
_LEAD = re.compile(
    r"(?:(?:the|an?(?=\s+option)|option|choice|answer|letter|number|statement|therefore|thus|then|hence|indeed|actually|clearly|"
    r"simply|definitely|likely|probably|most\s+likely|is|be|to|either|both|that|correct|opci[o\u00f3]n|r\u00e9ponse|die|der|la|el|"
    r"\u9009\u9879|\u9078\u9805|\uc120\ud0dd\uc9c0)(?![A-Za-z])[\s:*_\"'$]*)*+",
    re.IGNORECASE,
)
_DENIED = re.compile(r"(?:not|neither|never|nor|no longer|isn['\u2019]t)\b", re.IGNORECASE)
_NONE_FITS = re.compile(
    r"[\s(\[*_]*(?:(?:also |still |clearly |actually )?(?:not|isn['\u2019]t)\s+(?:[a-z]+\s+)?(?:listed|available|given|"
    r"provided|present|shown|here|there|possible|(?:an?|any|one)\s+(?:of\s+the\s+)?(?:\w+\s+)?(?:options?|choices?)|"
    r"(?:among|in|on|within|any\s+of|one\s+of)\s+(?:the|these|those|any)\b)|(?:in)?correct\b|wrong\b)",
    re.IGNORECASE,
)
"""Matches what says that no option is right, as "not among the choices": the text chooses none."""
_LETTER = re.compile(
    r"(?:[\[(\uff08{]\s*(?P<marked>[A-Za-z])\s*[\])\uff09}]|(?P<dotted>[A-Z])(?=[).:\uff1a\uff09])|(?P<bare>[A-Z]))"
    r"(?![A-Za-z0-9_'\u2019])"
)
_CLOSERS = r"[\s.)\]}*_\"'\u2019\u201d$:\uff09]|\\\)|\\\]"
_BUT = re.compile(r"not\s[^.;!?\n]{1,60}?,?\s+but\s+(?:rather\s+|instead\s+)?", re.IGNORECASE)
"""Matches `not (A) but` in "The answer is not (A) but (B)"."""
_ONLY_A_LETTER = re.compile(r"\(?([A-Z])\)?[\s.*_$]*")
_SECOND = re.compile(
    rf"(?:{_CLOSERS})*?\s*(?P<joint>,|/|&|\b(?:or|and|und|oder|et|ou|y|o|e|\u0438|\u0438\u043b\u0438)\b|\u548c|\u6216|\u3001"
    r"|\\text\s*\{\s*,?\s*(?:or|and)\s*\})+\s*(?:both\s+)?(?:or\s+|and\s+)?(?:options?\s+|choices?\s+|maybe\s+|possibly\s+)*"
    r"[*_(\[$\"]*(?P<letter>[A-Z])(?![A-Za-z0-9_'\u2019])(?P<rest>[)\]*_\"$]*\s*(?:is|are|was|were|says|would)\b)?"
)
_MORE_LETTERS = re.compile(r"(?:\s+[A-Z](?![A-Za-z0-9_'\u2019.)]))+(?=\s*\Z)")
_BRACKETED_LETTERS = re.compile(
    r"[\[({]\s*([A-Z](?:\s*(?:,|/|&|\band\b|\bor\b)+\s*(?:and\s+|or\s+)?[A-Z]){1,25})\s*[\])}]"
)
_LATER = re.compile(r"\b(?:or|and)\s+(?:option\s+)?\(([A-Z])\)")
# A point between digits and the sign of a factorial belong to a value: "10.4" is not option 10, "8!" not option 8.
_REASON = re.compile(
    r"\.(?!\d)|(?<![\d)}])!|(?<=[\d)}]!)\s+(?=[A-Z])|[;?\u3002\uff1b\n]|,\s+(?:as|because|since|which|so|where|while|but)\b|\s(?:because|since|as|which|while|but)\s"
    r"|\s[\u2013\u2014-]\s"
)
_PRONOUN = re.compile(r"\s+(?:[a-z]+(?:['\u2019][a-z]+)?)\b")
_NO_ARTICLE = re.compile(
    r"\s+(?:because|since|as|and|or|is|which|but|with|for|due|in|that|so|if|when|where|by|given|according|from|not)\b"
)
_AFTER_OPTION_TEXT = re.compile(
    r"[\s*_\"'\u2019\u201d)$]*(?:\Z|[,;.:!?(\u3002\uff0c\n]|\s[\u2013\u2014-]|\s(?:because|since|as|which|so|where|while|but|"
    r"is\s+the)\b)"
)
_IS_CORRECT = re.compile(
    r"(?:\b(?P<word>[Oo]ption|[Cc]hoice|[Aa]nswer|[Ss]tatement)\s+)?(?P<open>[*_(\"]{0,4})(?P<letter>[A-Z])[)*_\".:]{0,4}"
    r"\s+(?:is|must be|would be|seems)\s+(?:therefore\s+|thus\s+|clearly\s+|indeed\s+)?(?:the\s+)?"
    r"(?:(?:correct|right|best|closest|only correct|most\s+\w+)\b"
    r"(?P<noun>\s+(?:answer|option|choice|one|statement)\b)?|answer\b)"
)
_JOINED_BEFORE = re.compile(
    r"(?:\b(?:and|or|nor|not|than|if|whether)|(?<![A-Za-z])\(?[A-Z]\)?[*_]*\s*[,&/])\s*(?:option\s*|choice\s*)?\Z",
    re.IGNORECASE,
)
_AT_THE_END = re.compile(
    r"\b(?:option|choice|answer|letter|(?:think|believe|guess|say)\s+(?:it['\u2019]s|it\s+is)|"
    r"which is|closest is|corresponds to|matches|matching)\s+"
    r"(?:option\s+|choice\s+|answer\s+)?[*_$]{0,2}(?:\((?P<marked>[A-Z])\)|(?P<bare>[A-Z])(?![A-Za-z0-9]))[*_$.\s)]*\Z",
    re.IGNORECASE,
)
_LEADS_TO = re.compile(
    r"(?:\A|[.,:=\n\u2192]|\b(?:I|so|thus|hence|therefore|is|be|to|with|the|one|value|result|closest|also))\s*[*_]*\Z",
    re.IGNORECASE,
)
_THEREFORE = re.compile(
    r"(?:so|thus|hence|therefore|ergo|in conclusion|\\therefore|\u2234|finally)[\s,:]+", re.IGNORECASE
)
_SYMBOLS = re.compile("[\u2190-\u2bff\U0001f000-\U0001faff\ufe0f]")
_NAMED = re.compile(r"(?:(?:option|choice|answer)\s+)?(?:[\[(]([A-Za-z])[\])]|([A-Za-z]))\**[.:)]?\**", re.IGNORECASE)
_LABELLED = re.compile(r"\(?([A-Z])[).:]\**\s+(\S.*)", re.DOTALL)
_OPTION_LINE = re.compile(r"[\s>*_-]*\(?[A-Z][).:]\**\s+\S")
_BOX_JOINT = re.compile(r"\\(?:text|mathrm)\s*\{\s*,?\s*(?:or|and)\s*\}|\b(?:or|and)\b|[,;/&]")


def extract_choice(problem: Problem, text: str) -> str | None:
    """Return the chosen option's capital letter, `"A, B"` for several, or what the text says instead of an option."""
    candidate = choose_option(text, options_of(problem))
    return None if candidate is None else candidate.reading.answer


def grade_choice(problem: Problem, extracted: str) -> bool | None:
    """Return whether the chosen option is the expected one; `None` if the expected answer names no option.

    Letters are compared regardless of case, texts regardless of spaces, case and outermost punctuation.
    """
    if problem.answer is None:
        return None
    options = options_of(problem)
    gold = choice_of(problem.answer, options)
    if gold is None:
        return None
    return choice_of(extracted, options) == gold


def choose_option(text: str, options: Sequence[str]) -> Candidate | None:
    """Return the last candidate of the highest rank that names an option; fall back to one that names none."""
    weak: Candidate | None = None
    for found in find_by_rank(text):
        valid: list[Candidate] = []
        for place in reversed(found[-MAX_READ:]):
            candidate = read(text, place, _reader(options))
            if candidate.reading.answer is None:
                continue
            if not candidate.reading.is_weak:
                valid.append(candidate)
                if len(valid) == MAX_CHOSEN:
                    break
            weak = weak or candidate
        if valid:
            return _all_of_them(valid, options) or valid[0]
    return weak


def all_option_candidates(text: str, options: Sequence[str]) -> list[Candidate]:
    """Return every candidate of a text, valid or not, sorted by place."""
    groups = [[read(text, f, _reader(options)) for f in found[-MAX_READ:]] for found in find_by_rank(text)]
    return sorted((c for group in groups for c in group), key=lambda c: (c.start, c.end))


def find_by_rank(text: str) -> Iterator[list[Found]]:
    """Yield the places of each rank, each list sorted by place."""
    groups = box_groups(text, find_boxes(text), adjacent=True)
    places = [Found(g[0].start, g[-1].end, "box", g[-1].end, tuple(g)) for g in groups]
    places += (Found(start, inner, "tag", end) for start, inner, end, _ in find_tags(text))
    places += passages_of(text, find_announcements(text))
    yield sorted(places)
    yield list(_statements(text))
    yield _last_line(text)


def _reader(options: Sequence[str]) -> Reader:
    def read_found(text: str, found: Found) -> Reading:
        if found.kind == "box":
            contents = [text[box.inner_start : box.inner_end] for box in found.boxes]
            return _read_contents([c for c in contents if not is_blank(c)], options)
        if found.kind == "last_line":
            return _read_line(text, found, options)
        if found.kind == "statement":
            return Reading(text[found.end - 1]) if letter_exists(text[found.end - 1], options) else _NO_OPTION
        if found.kind == "closing":
            return _read_before(text, found, options)
        if found.kind == "tag" and not find_boxes(text[found.end : found.limit]):
            whole = _read_contents([text[found.end : found.limit]], options)
            if not whole.is_weak:
                return whole
        return _read_passage(text, found, options)

    return read_found


_NO_OPTION = Reading(None, "names no option")


def _read_contents(contents: list[str], options: Sequence[str]) -> Reading:
    """Read the contents of a group of boxes."""
    if not contents:
        return Reading(None, "is empty")
    letters = dict.fromkeys(choice_of(content, options) for content in contents)
    named = [letter for letter in letters if letter is not None]
    if len(contents) == 1 and not named:
        named = list(dict.fromkeys(filter(None, (choice_of(p, options) for p in _BOX_JOINT.split(contents[0][:200])))))
        if len(named) < 2:
            named = []
    if named:
        return Reading(", ".join(named))
    return Reading(", ".join(c.strip() for c in contents).strip(", ") or None, "names no option", is_weak=True)


def _read_passage(text: str, found: Found, options: Sequence[str]) -> Reading:
    """Read an announcement: a letter, or an option's text."""
    skipped = _SKIPPED.match(text, found.end, found.limit)
    start = skipped.end() if skipped else found.end
    line_end = text.find("\n", start, found.limit)
    passage = text[start : min(found.limit if line_end < 0 else line_end, start + MAX_PASSAGE_CHARS)]
    if not passage.strip(" *_$.)"):
        return Reading(None, "nothing follows")
    if passage.startswith(("\\boxed", "\\fbox")):
        return Reading(None, "holds a box, which counts by itself")
    if (bare := _ONLY_A_LETTER.fullmatch(passage)) is not None and letter_exists(bare[1], options):
        return Reading(bare[1])
    led = _LEAD.match(passage)
    rest = passage[led.end() :] if led else passage
    # "a" may be the option or an article, and an option may itself begin with "the".
    by_text = _by_text(passage, options) or _by_text(rest, options)
    if by_text is not None:
        return by_text
    if _NONE_FITS.match(rest):
        return Reading(None, "says that no option is right")
    if (instead := _BUT.match(rest)) is not None:
        rest = rest[instead.end() :]
    if _DENIED.match(rest):
        return Reading(passage.strip(" *_"), "says what the answer is not", is_weak=True)
    if (several := _BRACKETED_LETTERS.match(rest)) is not None:
        letters = re.findall(r"[A-Z]", several[1])
        if all(letter_exists(letter, options) for letter in letters):
            return Reading(", ".join(dict.fromkeys(letters)))
    letter = _letter_at(rest, found.kind, options)
    if letter is not None:
        return letter
    said = _REASON.split(passage, maxsplit=1)[0].strip(" *_`\"'")
    return Reading(said or None, "names no option", is_weak=True)


def _letter_at(rest: str, kind: Kind, options: Sequence[str]) -> Reading | None:
    """Return the letter that a passage begins with, and any other letters joined to it."""
    said = _REASON.split(rest, maxsplit=1)[0].strip(" *_`\"')$}")
    whole = _NAMED.fullmatch(said)
    found = _LETTER.match(rest)
    if whole is not None and (found is None or found["marked"] is None or len(said) <= 4):
        named = (whole[1] or whole[2]).upper()
        end = rest.find(whole[1] or whole[2]) + 1
    elif found is not None:
        named = (found["marked"] or found["dotted"] or found["bare"]).upper()
        end = found.end()
        behind = rest[found.end() :]
        if found["bare"] in ("A", "I") and _PRONOUN.match(behind) and not _NO_ARTICLE.match(behind):
            return None  # "A matter of taste", "I think so"
        if kind in ("label", "hashes") and found["marked"] is None and behind.strip(" .*_):"):
            return None  # a line "A: London" lists an option
    else:
        return None
    if not letter_exists(named, options):
        return None
    if (row := _MORE_LETTERS.match(rest, end)) and all(letter_exists(other, options) for other in row[0].split()):
        return Reading(", ".join([named, *row[0].split()]))
    if joined := _joined_letters(rest, end, options):
        return Reading(", ".join(dict.fromkeys([named, *joined])))
    clause = re.split(r"[.;\n]|,\s|\s(?:because|since|as|which|while|but)\s", rest[end:], maxsplit=1)[0]
    if (later := _LATER.search(clause)) is not None and later[1] != named and letter_exists(later[1], options):
        return Reading(f"{named}, {later[1]}")
    # A letter with the text of another option is contradictory.
    texts = same_texts(said.partition(" ")[2], options) if " " in said else []
    return Reading(said, "names two options", is_weak=True) if texts and named not in texts else Reading(named)


def _joined_letters(rest: str, end: int, options: Sequence[str]) -> list[str]:
    """Return the letters joined to one that ends at `end`: `["C", "D"]` in "(A), (C) and (D)"."""
    letters: list[str] = []
    while (following := _SECOND.match(rest, end)) is not None and len(letters) < MAX_CHOSEN:
        if (following["rest"] and following["joint"] == ",") or not letter_exists(following["letter"], options):
            break
        letters.append(following["letter"])
        end = following.end("letter")
    return letters


def _by_text(passage: str, options: Sequence[str]) -> Reading | None:
    """Return the option whose text the passage equals or begins with."""
    if not options:
        return None
    said = _REASON.split(passage, maxsplit=1)[0]
    for whole in (passage, said, said.rstrip("!")):
        if len(plain(whole)) > 1 or plain(whole).isdigit():
            named = named_by_text(whole, options)
            if named is not None:
                return _unless_taken_back(named, passage, len(whole))
    folded = passage.casefold()
    for index in sorted(range(min(len(options), 26)), key=lambda i: -len(options[i])):
        option = options[index].strip().rstrip(".").casefold()
        if len(option) > 1 and folded.startswith(option) and _AFTER_OPTION_TEXT.match(passage, len(option)):
            tail = passage[len(option) :].lstrip(" ,*_\"'")
            others = [
                o for o in options if len(o) > 1 and o.casefold() != option and tail.casefold().startswith(o.casefold())
            ]
            return None if others else _unless_taken_back(chr(ord("A") + index), passage, len(option))
    return None


def _unless_taken_back(letter: str, passage: str, end: int) -> Reading:
    """Return the option whose text ends at `end`, or nothing if "but this is not an option" follows."""
    why = taken_back(passage, end, is_marked=True)
    return Reading(None, why) if why else Reading(letter)


def _read_before(text: str, found: Found, options: Sequence[str]) -> Reading:
    """Read the letter or option text before "is the answer"."""
    clause = re.split(r"[.;:!?]\s|\n", text[max(0, found.start - 200) : found.start])[-1].strip(" *_\"'")
    clause = re.sub(r"^(?:(?:therefore|thus|so|hence|then|and|that|we conclude that)\b[,\s]*)+", "", clause, flags=re.I)
    letter = re.fullmatch(r"(?:.*[\s,*_(])??(?:option\s+|choice\s+|answer\s+)?\(?([A-Z])\)?", clause)
    before = clause[: letter.start(1)].rstrip("( ") if letter else ""
    is_alone = not before or re.search(r"(?:option|choice|answer|so|,|that)\Z", before, re.IGNORECASE)
    is_joined = _JOINED_BEFORE.search(before.removesuffix(","))
    if letter and is_alone and not is_joined and letter_exists(letter[1], options):
        return Reading(letter[1])
    named = named_by_text(clause, options) if len(clause) > 1 else None
    return Reading(named) if named else _NO_OPTION


def _statements(text: str) -> Iterator[Found]:
    """Yield places such as "Option B is the correct one" or, at the end, "(B) is correct" and "which is option (B)"."""
    end = len(text.rstrip())
    tail_start = max(end - MAX_LINE_CHARS, text.rfind("\n", 0, end) + 1)
    for found in _IS_CORRECT.finditer(text) if " is " in text or " be " in text or "seems" in text else ():
        is_line = found.start() == tail_start or text[:end].endswith("\n", 0, found.start())
        is_named = is_line or found["word"] or "(" in found["open"] or "**" in found["open"] or found["noun"]
        is_last = found.start() >= tail_start and not re.search(r"[.!?]\s+\S", text[found.end() : end])
        before = text[max(0, found.start() - 20) : found.start()]
        if is_named and (found["noun"] or found[0].endswith("answer") or is_last) and not _JOINED_BEFORE.search(before):
            yield Found(found.start(), found.end("letter"), "statement", len(text))
    if ending := _AT_THE_END.search(text, tail_start, end):
        group = "marked" if ending["marked"] else "bare"
        before = text[max(0, ending.start() - 30) : ending.start()]
        if ending[group].isupper() and _LEADS_TO.search(before):
            yield Found(ending.start(), ending.end(group), "statement", len(text))


def _last_line(text: str) -> list[Found]:
    stripped = text.rstrip()
    start = stripped.rfind("\n") + 1
    if not stripped or len(stripped) - start > MAX_LINE_CHARS:
        return []
    return [Found(start, len(stripped), "last_line", len(stripped))]


def _read_line(text: str, found: Found, options: Sequence[str]) -> Reading:
    """Read a last line that is a letter, a letter with its option, or an option's text, but not part of a list."""
    line = _SYMBOLS.sub("", text[found.start : found.end]).strip(" *`_#>$\t")
    if led := _THEREFORE.match(line):
        line = line[led.end() :].strip(" *`_$")
    if (named := _NAMED.fullmatch(line.rstrip("."))) is not None:
        letter = (named[1] or named[2]).upper()
        return Reading(letter) if letter_exists(letter, options) else _NO_OPTION
    before = text[: found.start].rstrip()
    if _OPTION_LINE.match(before[before.rfind("\n") + 1 :]) and _OPTION_LINE.match(text[found.start : found.end]):
        return Reading(None, "is a line of a list")
    if (labelled := _LABELLED.fullmatch(line)) is not None:
        if options:
            named_letter = choice_of(line, options)
            return Reading(named_letter) if named_letter and same_texts(labelled[2], options) else _NO_OPTION
        is_short = len(labelled[2].split()) <= 6 and not re.match(r"(?:is|are|was|because|cannot|can)\b", labelled[2])
        return Reading(labelled[1]) if is_short and letter_exists(labelled[1], options) else _NO_OPTION
    by_text = named_by_text(line, options) if len(line) > 1 else None
    return Reading(by_text) if by_text else _NO_OPTION


def _all_of_them(valid: Sequence[Candidate], options: Sequence[str]) -> Candidate | None:
    """Return a candidate that names every option if the text chooses each of them; `valid` starts with the last one."""
    named = {letter for c in valid for letter in (c.reading.answer or "").split(", ")}
    if len(named) < max(MIN_OPTIONS_FOR_ALL, len(options)):
        return None
    last = valid[0]
    return Candidate(last.start, last.end, last.kind, Reading(", ".join(sorted(named)), "every option is chosen"))
