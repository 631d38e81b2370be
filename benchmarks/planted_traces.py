"""Labelled traces: real or synthetic reasoning, and the same with one fault planted into each.

From clean (reasoning, content) pairs come, for each reason, traces that have it. Everything planted is written
for this file; where a fault is planted, and which one, is drawn under a seed.

    plant("mixed_language", [("We add two and two.", "\\\\boxed{4}")], random.Random(0))
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path

Trace = tuple[str, str]
"""(reasoning, content)"""

SHARE = 0.005
"""Of the characters, in another script."""

TRACE_CHARS = 8_000

OTHER_SCRIPTS = {
    "zh": "我们先把两边同时平方然后整理得到一个关于未知数的二次方程再检查每个根是否满足条件最后把结果相加",
    "ja": "まず両辺を二乗してから整理すると二次方程式が得られるのでそれぞれの解を確かめます",
    "ru": "сначала возведём обе части в квадрат потом приведём подобные члены и проверим каждый корень уравнения",
    "uk": "спочатку піднесемо обидві частини до квадрата потім зведемо подібні доданки та перевіримо корені",
    "el": "πρώτα υψώνουμε και τα δύο μέλη στο τετράγωνο και έπειτα ελέγχουμε κάθε ρίζα της εξίσωσης",
    "ar": "أولا نرفع الطرفين إلى القوة الثانية ثم نجمع الحدود المتشابهة ونتحقق من كل جذر للمعادلة",
    "he": "תחילה נעלה את שני האגפים בריבוע ואז נכנס איברים דומים ונבדוק כל שורש של המשוואה",
    "hi": "पहले हम दोनों पक्षों का वर्ग करते हैं फिर समान पदों को जोड़कर हर मूल की जाँच करते हैं",
    "ko": "먼저 양변을 제곱한 다음 동류항을 정리하고 방정식의 각 근이 조건을 만족하는지 확인합니다",
    "th": "ก่อนอื่นเรายกกำลังสองทั้งสองข้างแล้วจัดรูปสมการจากนั้นตรวจสอบคำตอบแต่ละค่า",
}
"""What a trace in English may slip into, by language; cut to length at a word where it has words."""

SAME_SCRIPT = {
    "es": "Primero elevamos al cuadrado los dos lados de la ecuación y reunimos los términos que son iguales. Después "
    "comprobamos si cada una de las raíces cumple también la condición que se pedía al principio del problema.",
    "fr": "Nous élevons d'abord au carré les deux membres de l'équation et nous rassemblons les termes semblables. "
    "Ensuite nous vérifions que chacune des racines remplit aussi la condition qui est donnée dans l'énoncé.",
    "de": "Zuerst quadrieren wir beide Seiten der Gleichung und fassen die Glieder zusammen, die gleich sind. Danach "
    "prüfen wir, ob jede der Wurzeln auch die Bedingung erfüllt, die am Anfang der Aufgabe gegeben ist.",
    "it": "Prima eleviamo al quadrato i due membri dell'equazione e raccogliamo i termini che sono simili. Dopo "
    "controlliamo se ognuna delle radici soddisfa anche la condizione che è data all'inizio del problema.",
    "pt": "Primeiro elevamos ao quadrado os dois lados da equação e juntamos os termos que são semelhantes. Depois "
    "verificamos se cada uma das raízes também cumpre a condição que foi dada no início do problema.",
    "nl": "Eerst kwadrateren we beide kanten van de vergelijking en nemen we de termen samen die gelijk zijn. Daarna "
    "gaan we na of elk van de wortels ook voldoet aan de voorwaarde die aan het begin gegeven is.",
    "pl": "Najpierw podnosimy obie strony równania do kwadratu i zbieramy wyrazy, które są podobne. Potem sprawdzamy, "
    "czy każdy z pierwiastków spełnia także warunek, który był podany na początku zadania.",
    "vi": "Trước hết ta bình phương hai vế của phương trình rồi gom các số hạng giống nhau. Sau đó ta kiểm tra xem mỗi "
    "nghiệm có thỏa mãn điều kiện đã cho ở đầu bài toán hay không.",
}

LOOPS = (
    "Wait, let me check the sign once more before I go on. ",
    "Hmm, so the value is {n}, but that is not an integer, so I must have made a mistake somewhere above.\n\n",
    "So the answer is {n}. ",
    (
        "But this contradicts what we found before. Let me start again from the first equation and go through each of "
        "the steps with care. We square both sides, collect the terms on the left, and find that the constant is {n}. "
    ),
    "{n} + {n} + {n} + {n} = ",
)

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I cannot assist with this request.",
    "Sorry, I can't answer this question.",
    "I apologize, but I am unable to provide a solution to this problem.",
    "I cannot solve this problem.",
    "As an AI language model, I do not have the ability to look at figures, so no solution can be given.",
    "As a large language model I must decline.",
    "Unfortunately, I am not able to determine a result from what is given.",
    "I'm afraid I can't complete this task.",
    "I won't provide an answer to this.",
    "I must respectfully decline to answer.",
    "I am not allowed to discuss this topic.",
    "Lo siento, pero no puedo ayudar con eso.",
    "Je suis désolé, mais je ne peux pas répondre à cette question.",
    "Es tut mir leid, aber ich kann diese Frage nicht beantworten.",
    "Mi dispiace, ma non posso aiutarti con questa richiesta.",
    "Desculpe, mas não posso ajudar com isso.",
    "Извините, но я не могу помочь с этим запросом.",
    "很抱歉,我无法回答这个问题。",
    "申し訳ありませんが、そのご質問にはお答えできません。",
    "죄송하지만 이 요청은 도와드릴 수 없습니다.",
)

INSTRUCTIONS = (
    (
        "You are a careful mathematician. Think through the problem step by step inside the tags, look for mistakes "
        "before you go on, and give the final result in a box at the very end of your answer and nowhere else."
    ),
    (
        "A farmer has seventeen sheep and all but nine of them run away during the storm. How many sheep are left? All "
        "but nine means that nine stay where they are, so the number of sheep that are left is nine."
    ),
)

CODE = "```python\ntotal = 0\nfor n in range(1, {n}):\n    total += n * n\nprint(total)\n```"

SYNTHETIC_STEPS = (
    "We add {a} and {b}, which makes {c}.",
    "Next, multiply by {a}: this gives {d}, so the remainder on division by {b} is {r}.",
    "Let me check that: {a} + {b} = {c}, as it should be.",
    r"Since \({a}x = {d}\), we find \(x = {b}\), and the other root is no integer.",
    "Hmm, the case where n = {a} needs some care, because {b} divides neither of the two factors.",
    "Wait, is {c} even possible here? The sum of the digits says yes.",
    r"Therefore $\frac{{{a}}}{{{b}}}$ is already in lowest terms.",
    "The angle at B is {a}°, so the angles α and β add up to {r}° — that’s less than 180°.",
    "| {a} | {b} | {c} |",
    "So there are {a} ways to choose the first and {b} ways to choose the second, and thus {d} pairs in all.",
)


def synthetic_traces(num: int, seed: int = 0) -> list[Trace]:
    """Reasoning of about `TRACE_CHARS` out of templates with numbers, each with a boxed result."""
    dice = random.Random(seed)
    return [(_synthetic_reasoning(dice), f"The result is \\(\\boxed{{{dice.randrange(1000)}}}\\).") for _ in range(num)]


def _synthetic_reasoning(dice: random.Random) -> str:
    steps: list[str] = []
    while sum(map(len, steps)) < TRACE_CHARS - 200:
        a, b = dice.randrange(2, 2_000), dice.randrange(2, 2_000)
        steps.append(dice.choice(SYNTHETIC_STEPS).format(a=a, b=b, c=a + b, d=a * b, r=a % b))
    return "\n".join(steps)


def real_traces(folder: Path) -> list[Trace]:
    """R1-style reasoning with its answer, and graded responses of `TRACE_CHARS` put together over many problems.

    Responses in which another script than Latin is in the prose are damaged, and left out.
    """
    traces: list[Trace] = []
    for name in ("sample_ollama_outputs.json", "sample_openrouter_outputs.json"):
        traces += [(row["message_thinking"], row["message_content"]) for row in json.loads((folder / name).read_text())]
    rows = [json.loads(line) for line in (folder / "graded_math_cot_100.jsonl").read_text().splitlines()]
    for sample in range(8):
        responses = [
            row["code"][sample]
            for row in rows
            if not any(char >= "\u0400" for char in row["code"][sample] if char.isalpha())
        ]
        reasoning: list[str] = []
        for response in responses:
            reasoning.append(response)
            if sum(map(len, reasoning)) > TRACE_CHARS - 1_000:
                traces.append(("\n\n".join(reasoning[:-1]), reasoning[-1]))
                reasoning = []
    return traces


def real_responses(folder: Path) -> list[Trace]:
    """Each graded response and each reference solution by itself, as content without reasoning."""
    rows = [json.loads(line) for line in (folder / "graded_math_cot_100.jsonl").read_text().splitlines()]
    solutions = [row["solution"] for row in json.loads((folder / "math500.json").read_text())]
    return [("", response) for row in rows for response in row["code"]] + [("", solution) for solution in solutions]


def plant(reason: str, traces: Sequence[Trace], dice: random.Random) -> list[Trace]:
    """The traces, each with one fault of the kind that `reason` names."""
    return [_PLANTERS[reason](reasoning, content, dice) for reasoning, content in traces]


def plant_language(text: str, language: str, dice: random.Random, share: float = SHARE) -> str:
    """The text with words of another script that make up `share` of its characters, at a line's or sentence's end."""
    foreign, num = OTHER_SCRIPTS[language], max(2, round(share * len(text)))
    piece = (foreign * (1 + num // len(foreign)))[:num]
    return _insert(text, piece, dice)


def plant_sentences(text: str, language: str, dice: random.Random, num_sentences: int = 2) -> str:
    """The text with one or two sentences of another language in Latin script, on a line of their own."""
    sentences = SAME_SCRIPT[language].split(". ")
    return _insert(text, "\n" + ". ".join(sentences[:num_sentences]).rstrip(".") + ".\n", dice)


def _insert(text: str, piece: str, dice: random.Random) -> str:
    """Between two sentences or lines, which is never within a formula or a block of code."""
    places = [at + 1 for at in range(len(text) - 1) if text[at] == "\n" or text[at : at + 2] == ". "] or [len(text)]
    places = [at for at in places if text.count("$", 0, at) % 2 == 0 and _is_outside(text, at)] or [len(text)]
    at = dice.choice(places)
    return f"{text[:at]} {piece} {text[at:]}"


def _is_outside(text: str, at: int) -> bool:
    before = text[:at]
    closed = all(before.count(f"\\{left}") == before.count(f"\\{right}") for left, right in ("[]", "()"))
    return closed and before.count("\\begin{") == before.count("\\end{") and before.count("```") % 2 == 0


def _mixed_language(reasoning: str, content: str, dice: random.Random) -> Trace:
    return plant_language(reasoning, dice.choice(sorted(OTHER_SCRIPTS)), dice), content


def _repetition(reasoning: str, content: str, dice: random.Random) -> Trace:
    """A loop that ran until the limit, or that the model came out of: after some pages, or after a few lines."""
    piece = dice.choice(LOOPS).format(n=dice.randrange(2, 1_000))
    loop = piece * (1 + dice.randrange(6_000, 16_000) // len(piece))
    short = piece * dice.randrange(20, 60)
    ways = (
        (f"{reasoning}\n\n{loop}", ""),
        (f"{loop}\n\n{reasoning}", content),
        (f"{reasoning}\n\n{short}", content),
        (_insert(reasoning, short, dice), content),
    )
    return dice.choice(ways)


def _long_paragraph(reasoning: str, content: str, dice: random.Random) -> Trace:
    """One wall of text: the lines run on, over again where they are few."""
    lines = [line for line in reasoning.split("\n") if line.strip() and not line.lstrip().startswith(("|", "\\", "$"))]
    wall = " ".join(lines)
    wall = " ".join([wall] * (1 + dice.randrange(9_000, 12_000) // max(1, len(wall))))
    return f"{wall.replace('$$', '').replace(chr(92) + '[', '')}\n\nSo we are done.", content


def _code_block(reasoning: str, content: str, dice: random.Random) -> Trace:
    block = CODE.format(n=dice.randrange(10, 1_000))
    return (f"{reasoning}\n\n{block}\n", content) if dice.random() < 0.5 else (reasoning, f"{block}\n\n{content}")


def _several_answers(reasoning: str, content: str, dice: random.Random) -> Trace:
    result = f"\\boxed{{{dice.randrange(1_000, 9_999)}}}"
    ways = (
        f"{content}\n\nWait, that is wrong. The answer is {result}.",
        f"{content}\n\n**Final answer:** ${result}$",
        f"The answer is {result}.\n\n{content}",
        f"{content}\n\n\\[ {result} \\]",
    )
    return reasoning, dice.choice(ways)


def _refusal(reasoning: str, content: str, dice: random.Random) -> Trace:
    return reasoning, dice.choice(REFUSALS)


def _prompt_leak(reasoning: str, content: str, dice: random.Random) -> Trace:
    """An instruction told again: whole, or without its first or last words."""
    words = dice.choice(INSTRUCTIONS).split()
    cut = dice.randrange(0, len(words) // 4)
    told = " ".join(words[cut:] if dice.random() < 0.5 else words[: len(words) - cut])
    return _insert(reasoning, f"The instructions say: {told}", dice), content


_PLANTERS = {
    "mixed_language": _mixed_language,
    "repetition": _repetition,
    "long_paragraph": _long_paragraph,
    "code_block": _code_block,
    "several_answers": _several_answers,
    "refusal": _refusal,
    "prompt_leak": _prompt_leak,
}
FAULTS = tuple(_PLANTERS)
