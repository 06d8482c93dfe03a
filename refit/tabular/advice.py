"""What to write in a config about values that could not be read: the exact lines of YAML."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import get_args

from refit.tabular.file_format import EventTypeName
from refit.tabular.line_problems import TOO_FEW, TOO_MANY
from refit.tabular.parsing import NO_ZONE, NULL_SPELLING, NULL_SPELLINGS, READ_AS

UNKNOWN_TYPE = "unknown event type"
TOO_EARLY = "before 1990"

_MEANS: Mapping[str, Sequence[str]] = {
    "hide": ("dislike", "block", "report", "dismiss", "notinterested"),
    "view": ("click", "visit", "impression", "open", "pageview", "detail", "browse", "show"),
    "like": ("favorite", "favourite", "wish", "save", "bookmark", "heart", "watch", "follow"),
    "cart": ("basket", "addto", "bag"),
    "offer": ("bid", "negotiat"),
    "purchase": ("transaction", "buy", "bought", "order", "sale", "sold", "paid", "checkout"),
}
_DIGITS_OF_A_DAY = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])(\d{6})?$")
_DATE_WITH_YEAR_LAST = re.compile(r"\s*(?P<first>\d{1,2})[-./](?P<second>\d{1,2})[-./]\d{4}\b")
_NUMBER_FORMS: Sequence[tuple[str, Sequence[str]]] = (
    (r"-?\d{1,3}(,\d{2,3})*,\d{3}(\.\d+)?", ('thousands: ","',)),
    (r"-?\d{1,3}(\.\d{3})+,\d+", ('decimal: ","', 'thousands: "."')),
    (r"-?\d{1,3}([\s\u00a0\u202f]\d{3})+,\d+", ('decimal: ","', 'thousands: " "')),
    (r"-?\d{1,3}([\s\u00a0\u202f]\d{3})+(\.\d+)?", ('thousands: " "',)),
    (r"-?\d{1,3}(['\u2019]\d{3})+(\.\d+)?", ('thousands: "\'"',)),
    (r"-?\d*,\d+", ('decimal: ","',)),
)
_YAML_WORDS = ("true", "false", "yes", "no", "on", "off", "y", "n", "null")
_SIGN = re.compile(r"^[+-]?(?P<before>[^\d\s.,()+-]+)?\s*(?P<number>[+-]?[\d.,'\s\u2019\u00a0]*\d)"
                   r"\s*(?P<after>[^\d\s.,()+-]+)?$")  # fmt: skip


def advise(reason: str, examples: Sequence[str]) -> str:
    """The lines of a config that may cure why rows were rejected; empty where none does.

    Args:
        reason: Such as ``event_time: has no time zone``.
        examples: Values of rejected rows, as text.
    """
    problem = reason.partition(": ")[2]
    advisers: dict[str, Callable[[Sequence[str]], str]] = {
        NO_ZONE: _advise_zone,
        NULL_SPELLING: _advise_nulls,
        UNKNOWN_TYPE: _advise_event_types,
        TOO_FEW: _advise_uneven,
        TOO_MANY: _advise_uneven,
        TOO_EARLY: lambda values: _advise_time(values) if _are_digits(values) else "",
        f"cannot be read as {READ_AS['time']}": _advise_time,
        f"cannot be read as {READ_AS['number']}": _advise_number,
        f"cannot be read as {READ_AS['vector']}": _advise_nulls,
    }
    adviser = advisers.get(problem)
    return adviser(examples) if adviser else ""


def guess_time_unit(number: float) -> str:
    """The unit in which a number since 1970 is a time of our years."""
    size = abs(number)
    return "s" if size < 1e11 else "ms" if size < 1e14 else "us" if size < 1e17 else "ns"


def advise_time_unit(number: float) -> str:
    """The lines of a config that say what times as numbers mean."""
    return f"time_unit: {guess_time_unit(number)}  # s, ms, us or ns since 1970"


def _advise_zone(_: Sequence[str]) -> str:
    return "naive_times: UTC  # or another IANA name, such as Europe/Berlin: what the times mean"


def _advise_uneven(examples: Sequence[str]) -> str:
    if not all(re.match(r"(?!#\s).*[,;\t|]", text, re.DOTALL) for text in examples):
        return ""  # a remark: it is no row, however many fields it has
    return "uneven_lines: fit  # if only empty fields at the end of a line are left out, or added"


def _advise_nulls(examples: Sequence[str]) -> str:
    nulls = [text.strip() for text in examples if text.strip().lower() in NULL_SPELLINGS]
    if not nulls:
        return ""
    return f"null_values: [{', '.join(map(json.dumps, dict.fromkeys(nulls)))}]  # they mean null"


def _advise_event_types(examples: Sequence[str]) -> str:
    if all(len(word) > 1 and word[0] == word[-1] == "'" for word in examples):
        return 'quote: "\'"  # it stands around the fields'
    kinds = ", ".join(get_args(EventTypeName))
    lines = [f"  {_key(word)}: {_guess_event_type(word)}" for word in examples]
    return "\n".join([f"event_types:  # each one of {kinds}", *lines])


def _advise_time(examples: Sequence[str]) -> str:
    are_days = all(_DIGITS_OF_A_DAY.match(text.strip()) for text in examples)
    if _are_digits(examples) and not are_days:
        return advise_time_unit(float(examples[0])) if examples else ""
    return (
        _advise_nulls(examples)
        or _advise_date_order(examples)
        or "# times are ISO 8601, such as 2026-05-01T10:00:00+02:00, or 2026-05-01 10:00:00 and "
        "the IANA name\n# of a zone, such as Europe/Berlin: an abbreviation such as EST has "
        "several meanings"
    )


def _advise_date_order(examples: Sequence[str]) -> str:
    dates = [found for text in examples if (found := _DATE_WITH_YEAR_LAST.match(text))]
    if not dates:
        return ""
    if any(int(date["first"]) > 12 for date in dates):
        return "date_order: dmy  # the day stands first"
    if any(int(date["second"]) > 12 for date in dates):
        return "date_order: mdy  # the month stands first"
    return f"date_order: dmy  # or mdy: what {dates[0][0].strip()} means"


def _are_digits(examples: Sequence[str]) -> bool:
    return all(re.fullmatch(r"-?\d{6,}(\.\d+)?", text.strip()) for text in examples)


def _advise_number(examples: Sequence[str]) -> str:
    lines: list[str] = []
    signs: list[str] = []
    for text in examples:
        number = text.strip()
        if (found := _SIGN.match(number)) and number.lower() not in NULL_SPELLINGS:
            signs += [sign for sign in (found["before"], found["after"]) if sign]
            number = found["number"].strip()
        lines += next((form for shape, form in _NUMBER_FORMS if re.fullmatch(shape, number)), ())
    if signs:
        lines.append(f"currency_signs: [{', '.join(map(_quoted, dict.fromkeys(signs)))}]")
    lines += [nulls] if (nulls := _advise_nulls(examples)) else []
    return "\n".join(dict.fromkeys(lines))


def _guess_event_type(word: str) -> str:
    folded = re.sub(r"[\W_]", "", word).lower()
    for kind, parts in _MEANS.items():
        if kind in folded or any(part in folded for part in parts):
            return kind
    close = get_close_matches(folded, get_args(EventTypeName), n=1)
    return close[0] if close else "..."


def _key(word: str) -> str:
    is_plain = re.fullmatch(r"[A-Za-z_][\w-]*|\d+", word) and word.lower() not in _YAML_WORDS
    return word if is_plain else _quoted(word)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def write_advice(blocks: Sequence[str]) -> str:
    """Lines of YAML from several pieces of advice, as one part ``ingestion`` of a config."""
    bodies: dict[str, tuple[str, list[str]]] = {}
    for block in filter(None, blocks):
        for name, first, rest in _split_settings(block):
            known, body = bodies.get(name, (first, []))
            bodies[name] = (
                _merge_lists(known, first),
                [*body, *(r for r in rest if r not in body)],
            )
    if not bodies:
        return ""
    lines = [line for first, body in bodies.values() for line in (first, *body)]
    return "\nwrite in the config:\n  ingestion:\n" + "\n".join(f"    {line}" for line in lines)


def _split_settings(block: str) -> list[tuple[str, str, list[str]]]:
    """The settings of a block: name, first line, and the lines below it."""
    found: list[tuple[str, str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith(" "):
            found[-1][2].append(line)
        else:
            found.append((line.partition(":")[0], line, []))
    return found


def _merge_lists(one: str, other: str) -> str:
    """The first of two lines, with the values that the list of the second adds."""
    pattern = re.compile(r"(\w+: \[)(.*?)(\].*)")
    first, second = pattern.fullmatch(one), pattern.fullmatch(other)
    if not (first and second):
        return one
    values = dict.fromkeys([*first[2].split(", "), *second[2].split(", ")])
    return f"{first[1]}{', '.join(values)}{first[3]}"
