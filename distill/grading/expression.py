r"""A strict parser for one mathematical value in LaTeX or plain notation.

It turns cleaned text (`distill.grading.quantities.clean`) such as `"\frac{1}{2}E_{1} + x(x+1)"` into a tree of `Node`.
Nothing is dropped, reordered or evaluated: a sign outside the grammar makes the text unreadable.
`distill.grading.values` compares two trees.
"""

import re
from fractions import Fraction

from distill.grading.notation import (
    ACCENT,
    ANGLE_DIVISOR,
    CLOSERS,
    COMMAND,
    DEGREES,
    DERIVATIVE,
    DIVIDE,
    FUNCTIONS,
    GREEK,
    INDEX,
    INVERSE,
    INVERTED,
    LOWER,
    MIXED,
    MODULO,
    NUMBER,
    PLAIN,
    POWER,
    PRIMES,
    SHAPE,
    STYLE,
    STYLES,
    SYMBOLS,
    TIMES,
    TRANSPOSE,
    WORD,
    Cursor,
    Node,
    UnreadableError,
    has_letters,
    is_vector,
    same_shape,
    transposable,
)

MAX_DEPTH = 60
"""Maximum nesting of a readable text: the parser is recursive."""


def read_expression(text: str, functions: frozenset[str] = frozenset(), tight: bool = False) -> Node:
    """Return the tree of one value.

    Args:
        text: cleaned LaTeX or plain notation.
        functions: letters that are functions before a bracket (`function_names`); others are factors.
        tight: read `1/2x` as `1/(2x)` instead of `(1/2)x`.

    Raises:
        UnreadableError: the text is not a single value of this grammar.
    """
    for sign, command in SYMBOLS.items():
        if sign in text:
            text = text.replace(sign, command)
    return _Parser(text.strip(), functions, tight).whole()


class _Parser(Cursor):
    r"""A recursive-descent parser without a tokenizer, because `\frac12` and `x12` split their digits differently."""

    def __init__(self, text: str, functions: frozenset[str], tight: bool) -> None:
        super().__init__(text)
        self.functions, self.tight = functions, tight
        self.depth = self.bars = 0
        self.bound = " "
        """Indices of the enclosing sums and products."""
        self.commas = 0
        """Number of enclosing brackets in which a comma separates."""

    def whole(self) -> Node:
        if not self.text:
            raise UnreadableError
        node = self.sum()
        if self.take(MODULO):
            bracketed = self.peek() == "("
            modulus = self.primary() if not bracketed else self.group("(")
            node = self.node("call", node, modulus, value="modulo")
            if self.text[self.place :].strip() == ")":
                self.place = len(self.text)
        if self.place < len(self.text):
            raise UnreadableError
        return node

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError
        terms = []
        while True:
            sign = self.peek()
            negative = False
            while sign and sign in "+-":
                negative ^= sign == "-"
                self.place += 1
                sign = self.peek()
            term = self.product()
            terms.append(self.node("neg", term) if negative else term)
            if self.peek() not in ("+", "-"):
                break
        self.depth -= 1
        return terms[0] if len(terms) == 1 else self.node("add", *terms)

    def product(self) -> Node:
        node = self.factors()
        while True:
            self.skip()
            if found := self.take(TIMES):
                right = self.signed_factors()
                if "times" in found[0] and is_vector(node) and is_vector(right):
                    node = self.node("call", node, right, value="cross")
                else:
                    node = self.node("mul", node, right)
            elif self.take(DIVIDE):
                right = self.signed_factors() if self.tight else self.signed_factor()
                node = self.node("div", node, right)
            elif self.starts_factor():
                node = self.node("mul", node, self.power())
            else:
                return node

    def signed_factors(self) -> Node:
        self.skip()
        if self.peek() in ("-", "+"):
            negative = self.text[self.place] == "-"
            self.place += 1
            node = self.factors()
            return self.node("neg", node) if negative else node
        return self.factors()

    def signed_factor(self) -> Node:
        if self.peek() in ("-", "+"):
            negative = self.text[self.place] == "-"
            self.place += 1
            node = self.power()
            return self.node("neg", node) if negative else node
        return self.power()

    def factors(self) -> Node:
        """Parse factors written side by side."""
        parts = [self.power()]
        while self.starts_factor():
            parts.append(self.power())
        return parts[0] if len(parts) == 1 else self.node("mul", *parts)

    def starts_factor(self) -> bool:
        char = self.peek()
        if not char or char in "+-*/^_)]},;:=<>!&'.?\"`#%@~$":
            return False
        if char == "|":
            return self.bars == 0
        if char.isdigit():  # two adjacent numbers are not a product
            before = self.text[: self.place].rstrip()[-1:]
            return not before.isdigit() or not self.text[self.place - 1].isspace()
        if char == "\\":
            found = COMMAND.match(self.text, self.place)
            return found is not None and found[1] not in (
                "cdot",
                "times",
                "div",
                "ast",
                "rfloor",
                "rceil",
                "rvert",
                "mod",
                "bmod",
                "pmod",
            )
        return char.isalpha() or char in "({["

    def power(self) -> Node:
        node = self.primary()
        while True:
            self.skip()
            if self.take(DEGREES):
                node = self.node("fn", node, value="degree")
            elif transposable(node) and self.take(TRANSPOSE):
                node = self.node("call", node, value="transpose")
            elif self.take(POWER):
                node = self.node("pow", node, self.exponent())
            elif self.text.startswith("!", self.place):
                self.place += 1
                if self.text.startswith("!", self.place):
                    raise UnreadableError  # the double factorial
                node = self.node("fn", node, value="factorial")
            elif self.text.startswith("\\%", self.place) or self.text.startswith("%", self.place):
                raise UnreadableError
            else:
                return node

    def exponent(self) -> Node:
        if self.peek() == "-":
            self.place += 1
            return self.node("neg", self.exponent())
        argument = self.argument()
        if found := self.take(POWER):
            del found
            return self.node("pow", argument, self.exponent())
        return argument

    def argument(self) -> Node:
        """Parse a command's argument: a group in brackets, a command with its own arguments, or one character."""
        char = self.peek()
        if char == "{":
            return self.group("{")
        if char == "(":
            return self.group("(")
        if char.isdigit():
            if self.text[: self.place].endswith(("**", "** ")) and (
                found := self.take(PLAIN if self.commas else NUMBER)
            ):
                return self.number(found[0])
            self.place += 1
            return self.node("num", value=Fraction(int(char)))
        if char == "\\" or char.isalpha():
            return self.primary(one_letter=True)
        raise UnreadableError

    def group(self, opening: str) -> Node:
        self.place += 1
        bars, self.bars = self.bars, 0
        self.commas += opening != "{"
        node = self.sum()
        self.commas -= opening != "{"
        self.bars = bars
        if self.peek() != CLOSERS[opening]:
            raise UnreadableError
        self.place += 1
        return node

    def primary(self, one_letter: bool = False) -> Node:
        char = self.peek()
        if char.isdigit() or char == ".":
            found = self.take(PLAIN if self.commas else NUMBER)
            if found is None:
                raise UnreadableError
            return self.number(found[0], mixed=True)
        if char and char in CLOSERS:
            return self.group(char)
        if char == "|":
            self.place += 1
            return self.bar("|")
        if char == "\\":
            return self.command()
        if char.isalpha():
            if not one_letter and (word := self.take(WORD)):
                return self.named(word[0])
            self.place += 1
            return self.symbol(char)
        raise UnreadableError

    def bar(self, closing: str) -> Node:
        self.bars += 1
        node = self.sum()
        self.skip()
        if not self.text.startswith(closing, self.place):
            raise UnreadableError
        self.place += len(closing)
        self.bars -= 1
        return self.node("fn", node, value="abs")

    def number(self, digits: str, mixed: bool = False) -> Node:
        if self.text.startswith("_", self.place):
            raise UnreadableError  # a number in another base
        value = Fraction(digits.replace(",", ""))
        if mixed and "." not in digits and (found := MIXED.match(self.text, self.place)):
            top, bottom = (int(group) for group in found.groups() if group)
            if not bottom:
                raise UnreadableError
            self.place = found.end()
            value += Fraction(top, bottom)
        return self.node("num", value=value)

    def command(self) -> Node:
        if found := self.take(DERIVATIVE):
            if (found[2] or "1") != (found[5] or "1"):
                raise UnreadableError
            return self.node("sym", value=f"d{found[2] or ''} {found[3]}/{found[4]}")
        if found := self.take(SHAPE):
            return self.node("sym", value=f"{found[1]} {same_shape(found[1], found[2])}")
        if found := self.take(STYLE):
            is_bold = found[0][1:].startswith(("mathbf", "bold", "bm"))
            return self.symbol(f"vec {found[1]}") if is_bold and len(found[1]) == 1 else self.styled(found[1])
        if found := self.take(ACCENT):
            return self.accented(found[1])
        found = self.take(COMMAND)
        if found is None:
            raise UnreadableError
        return self.named(found[1])

    def named(self, name: str) -> Node:
        if name in ("frac", "binom"):
            top, bottom = self.argument(), self.argument()
            return self.node("div", top, bottom) if name == "frac" else self.node("fn", top, bottom, value="binomial")
        if name == "sqrt":
            return self.root()
        if name in ("sum", "prod"):
            return self.series(name)
        if name in ("lvert", "lfloor", "lceil"):
            self.skip()
            if name == "lvert":
                return self.bar("\\rvert")
            bars, self.bars = self.bars, 0
            inner = self.sum()
            self.bars = bars
            if not self.text.startswith(f"\\r{name[1:]}", self.place):
                raise UnreadableError
            self.place += len(name) + 1
            return self.node("fn", inner, value=name[1:])
        if name in FUNCTIONS:
            return self.function(name)
        if name in ("pi", "infty", "infinity"):
            return self.node("sym", value="pi" if name == "pi" else "infty")
        if name in GREEK:
            return self.symbol(f"\\{name}")
        if name in ("imath", "jmath"):
            return self.node("sym", value="i")
        raise UnreadableError

    def root(self) -> Node:
        degree = None
        if self.peek() == "[":
            degree = self.group("[")
        inside = self.number_or_argument()
        if degree is None:
            return self.node("fn", inside, value="sqrt")
        return self.node("fn", inside, degree, value="root")

    def series(self, name: str) -> Node:
        """Parse a sum or product over an integer index; its term ends at the next plus or minus."""
        lower = upper = None
        index = ""
        for _ in range(2):
            self.skip()
            if self.take(LOWER):
                found = self.take(INDEX)
                if found is None:
                    raise UnreadableError
                index, lower = found[1], self.sum()
                if self.peek() != "}":
                    raise UnreadableError
                self.place += 1
            elif self.take(POWER):
                upper = self.argument()
        if lower is None or upper is None or upper == Node("sym", (), "infty"):
            raise UnreadableError
        self.bound += index
        term = self.product()
        self.bound = self.bound[:-1]
        return self.node(name, lower, upper, term, value=index)

    def number_or_argument(self) -> Node:
        r"""Parse an argument, reading `\sqrt12` as the root of 12; TeX would take only the 1."""
        if found := self.take(PLAIN if self.commas else NUMBER):
            return self.number(found[0])
        return self.argument()

    def function(self, name: str) -> Node:
        base = None
        power: Node | None = None
        for _ in range(2):
            self.skip()
            if self.text.startswith("_", self.place) and base is None:
                self.place += 1
                base = self.number_or_argument()
            elif self.take(POWER) and power is None:
                power = self.exponent()
        if power is not None and power.op == "neg" and power.args[0].value == 1 and name in INVERSE:
            name, power = f"arc{name}", None
        args = self.call_arguments() if self.peek() == "(" else (self.bare_argument(),)
        if base is not None:
            if name not in ("log", "lg"):
                raise UnreadableError
            args = (*args, base)
        if name == "cis":
            sine, cosine = (self.node("fn", *args, value=part) for part in ("sin", "cos"))
            node = self.node("add", cosine, self.node("mul", self.node("sym", value="i"), sine))
            return node if power is None else self.node("pow", node, power)
        op = "call" if name in ("Re", "Im", "arg") and any(map(has_letters, args)) else "fn"
        node = self.node(op, *args, value=name)
        return node if power is None else self.node("pow", node, power)

    def call_arguments(self) -> tuple[Node, ...]:
        self.place += 1
        bars, self.bars = self.bars, 0
        self.commas += 1
        args = [self.sum()]
        while self.peek() in (",", ";"):
            self.place += 1
            args.append(self.sum())
        self.commas -= 1
        self.bars = bars
        if self.peek() != ")":
            raise UnreadableError
        self.place += 1
        return tuple(args)

    def bare_argument(self) -> Node:
        r"""Parse an argument without brackets (`2x` in `\sin 2x \cos y`), up to the next function, sign or bracket."""
        if self.peek() == "-":
            self.place += 1
            return self.node("neg", self.bare_argument())
        if self.at_function():
            return self.power()
        parts = [self.power()]
        while self.starts_factor() and self.peek() not in ("(", "[") and not self.at_function():
            parts.append(self.power())
        node = parts[0] if len(parts) == 1 else self.node("mul", *parts)
        if Node("sym", (), "pi") in parts and self.take(ANGLE_DIVISOR):  # sin pi/6, but not sin x / x
            node = self.node("div", node, self.power())
        return node

    def at_function(self) -> bool:
        self.skip()
        found = COMMAND.match(self.text, self.place) or WORD.match(self.text, self.place)
        return found is not None and found[0].strip("\\ ") in FUNCTIONS

    def styled(self, word: str) -> Node:
        if word == "infinity":
            return self.node("sym", value="infty")
        if len(word) == 1:
            return self.symbol(word)
        if word in FUNCTIONS:
            return self.function(word)
        if word.isupper() and len(word) <= 3:
            return self.node("mul", *(self.symbol(letter) for letter in word))
        raise UnreadableError

    def accented(self, accent: str) -> Node:
        if self.peek() == "{":
            end = self.text.find("}", self.place)
            inside, self.place = self.text[self.place + 1 : end].strip(), end + 1
            if end < 0 or not re.fullmatch(r"[A-Za-z]{1,3}|\\[a-zA-Z]+|[a-zA-Z]_\{?\w", inside):
                raise UnreadableError
        else:
            found = re.compile(r"[A-Za-z]|\\[a-zA-Z]+").match(self.text, self.place)
            if found is None:
                raise UnreadableError
            inside, self.place = found[0], found.end()
        accent = {"overrightarrow": "vec", "overline": "bar", "widehat": "hat", "widetilde": "tilde"}.get(
            accent, accent
        )
        if accent == "bar" and len(inside) == 2 and inside.isupper():
            inside = "".join(sorted(inside))  # a segment has no direction
        return self.symbol(f"{accent} {inside}")

    def symbol(self, name: str) -> Node:
        """Parse a variable with its index and primes, or a call if it is one of `functions` before a bracket."""
        if self.peek() == "_":
            self.place += 1
            index = self.index()
            if index in self.bound:  # x_i of a sum over i
                return self.node("call", Node("sym", (), index), value=f"{name}_")
            name += "_" + index
        if found := self.take(PRIMES):
            name += "'" * (found[0].count("'") + found[0].count("prime"))
        if name in self.functions:
            inverse = self.take(INVERTED)
            if self.peek() == "(":
                return self.node("call", *self.call_arguments(), value=f"{name}^-1" if inverse else name)
            if inverse:
                raise UnreadableError
        return self.node("sym", value=name)

    def index(self) -> str:
        self.skip()
        if not self.text.startswith("{", self.place):
            found = re.compile(r"\w|\\[a-zA-Z]+").match(self.text, self.place)
            if found is None:
                raise UnreadableError
            self.place = found.end()
            return found[0]
        depth, start = 0, self.place
        while self.place < len(self.text):
            depth += {"{": 1, "}": -1}.get(self.text[self.place], 0)
            self.place += 1
            if depth == 0:
                inside = re.sub(rf"\\(?:{STYLES})\s*\{{([^{{}}]*)\}}", r"\1", self.text[start + 1 : self.place - 1])
                return inside.replace(" ", "")
        raise UnreadableError
