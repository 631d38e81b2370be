"""Canonical names of the units in answers: `"square centimetres"` is `"cm^2"`. Nothing is converted."""

import re

_UNITS: dict[str, str] = {
    "mm": "mm millimeter millimetre",
    "cm": "cm centimeter centimetre",
    "m": "m meter metre",
    "km": "km kilometer kilometre",
    "in": "in inch inche",
    "ft": "ft foot feet",
    "yd": "yd yard",
    "mi": "mi mile",
    "mg": "mg milligram",
    "g": "g gram",
    "kg": "kg kilogram",
    "lb": "lb pound",
    "oz": "oz ounce",
    "ml": "ml milliliter millilitre",
    "l": "l liter litre",
    "gal": "gal gallon",
    "s": "s sec second",
    "min": "min minute",
    "h": "h hr hour",
    "day": "day",
    "week": "week",
    "month": "month",
    "year": "year yr",
    "am": "am a.m.",
    "pm": "pm p.m.",
    "dollar": "dollar usd",
    "cent": "cent",
    "euro": "euro eur €",
    "sterling": "£ gbp",
    "yen": "yen jpy ¥",
    "rupee": "rupee rs inr ₹",
    "degree": "degree deg °",
    "radian": "radian rad",
    "celsius": "celsius",
    "fahrenheit": "fahrenheit",
    "kelvin": "kelvin",
    "ampere": "a amp ampere",
    "volt": "v volt",
    "watt": "w watt",
    "joule": "j joule",
    "newton": "n newton",
    "pascal": "pa pascal",
    "hertz": "hz hertz",
    "mole": "mol mole",
    "ohm": "ohm ω",
    "mi/h": "mph",
    "km/h": "kmh kmph",
    "percent": "percent % pct",
}
CANONICAL = {alias: unit for unit, aliases in _UNITS.items() for alias in aliases.split()}
_NO_UNIT = {"unit", "in total", "total", "altogether", "each"}
_UNIT_WORDS = {"per", "sq", "cu", "square", "cubic"}
POWER = re.compile(r"(?:\^\{([23])\}|\^([23])|([²³]))$")
_RAISED = {"²": "2", "³": "3"}
VOID = re.compile(
    r"\b(?:or|and|cis|to|minus|plus|times|over|squared|cubed|pi|mod|modulo|sqrt|root|more|less|than|if|when|where|with|"
    r"dozen|half|halves|third|thirds|quarter|quarters|sin|cos|tan|log|ln|exp|factorial|power|not|infinity|inf|base|per)\b"
)


def is_bare_unit(words: str) -> bool:
    """Return whether words outside `\\text` are a unit."""
    # Letters after a number may be a product of variables, so only known units and word-like text count.
    parts = re.split(r"[ /]", words)
    known = all(
        (len(part) > 1 or len(parts) > 1) and (_singular(part) in CANONICAL or part in _UNIT_WORDS) for part in parts
    )
    spelled = all(len(part) > 3 and part.isalpha() and re.search("[aeiou]", part) for part in parts)
    return known or spelled or words in "%°"


def unit_name(words: str, power: str = "") -> str:
    """Return the canonical name: `cm^2` for `square centimetres` and `sq cm`, `""` for words such as `in total`."""
    words = words.casefold().strip(" .")
    if found := re.match(r"(?:(square|sq\.?)|(cubic|cu\.?)) +", words):
        power, words = "2" if found[1] else "3", words[found.end() :]
    if found := POWER.search(words):
        power, words = exponent_of(found), words[: found.start()]
    parts = [_singular(part) for part in re.split(r" ?/ ?| per ", words)]
    name = "/".join(CANONICAL.get(part, part) for part in parts)
    if name in _NO_UNIT:
        return ""
    return f"{name}^{power}" if power and name else name


def exponent_of(found: re.Match[str]) -> str:
    return found[1] or found[2] or _RAISED[found[3]]


def _singular(word: str) -> str:
    if word in CANONICAL:
        return word
    return word[:-1] if len(word) > 2 and word.endswith("s") else word
