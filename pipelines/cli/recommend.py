"""refit recommend."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from pipelines.cli.options import JsonOption
from pipelines.cli.output import write_json, write_progress, write_table
from refit.errors import UsageError


def recommend(
    user: Annotated[
        list[str] | None,
        typer.Option("--user", "-u", help="Id of the user. Repeated: one request for all."),
    ] = None,
    similar: Annotated[
        str, typer.Option(help="Items similar to the one with this id, whoever asks.")
    ] = "",
    k: Annotated[int, typer.Option("-k", help="Number of items, of each page.")] = 10,
    context: Annotated[
        list[str] | None, typer.Option("--context", help="Request context: size=M. Repeatable.")
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require", help="Required attribute: category_1=women,kids; price=5..20. Repeatable."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Id of an item to leave out. Repeatable.")
    ] = None,
    personalised: Annotated[
        bool,
        typer.Option(
            "--personalised/--not-personalised",
            help="By the model, or what is popular overall, whoever asks.",
        ),
    ] = True,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Also show where each item comes from, the parts of its score, and the items of "
            "the history that it is most like.",
        ),
    ] = False,
    pages: Annotated[
        int, typer.Option(help="Number of pages; no page repeats an item.", min=1)
    ] = 1,
    url: Annotated[str, typer.Option(help="URL of the server.")] = "http://127.0.0.1:9000",
    as_json: JsonOption = False,
) -> None:
    """Request recommendations from a running server.

    With --json, several users or pages are a list of answers.

    Try:

      refit recommend --user shopper-000012 -k 5 --context surface=home --explain

      refit recommend --user shopper-000012 --pages 3

      refit recommend --user shopper-000012 --user shopper-000013

      refit recommend --similar item-000034

      refit recommend --require price=5..20 --require category_1=women --json
    """
    from serving.client import RecommenderClient

    users = user or []
    _check(users, similar, pages, explain, personalised)
    body: dict[str, Any] = {
        "context": dict(_split(pair) for pair in context or ()),
        "k": k,
        "exclude": exclude or [],
        "require": {name: _parse_requirement(text) for name, text in map(_split, require or ())},
    }
    if similar:
        body["item_id"] = similar
    if not personalised:
        body["personalised"] = False
    if explain:
        body["explain"] = True
    with RecommenderClient(url) as client:
        if len(users) > 1:
            bodies = [{**body, "user_id": name} for name in users]
            answers = client.send({"requests": bodies})["answers"]
        else:
            whose = {"user_id": users[0]} if users else {}
            answers = list(_ask(client, {**body, **whose}, pages))
    if as_json:
        write_json(answers if len(users) > 1 or pages > 1 else answers[0])
        return
    if len(users) > 1:
        _show_several("user", users, answers)
    elif pages > 1:
        _show_several("page", range(1, len(answers) + 1), answers)
    else:
        _show(answers[0])
    if len(answers) < pages:
        write_progress(f"there are no more than {len(answers)} pages")


def _check(
    users: Sequence[str], similar: str, pages: int, explain: bool, personalised: bool
) -> None:
    if similar and (users or explain or not personalised):
        raise UsageError("--similar asks about an item: leave out --user, --explain and the like")
    if len(users) > 1 and pages > 1:
        raise UsageError("--pages continues the list of one user: name one --user")


def _ask(client: Any, body: Mapping[str, Any], pages: int) -> Iterator[dict[str, Any]]:
    """The pages of a list, until it ends."""
    if pages == 1:
        yield client.send(body)
        return
    cursor: str | None = ""
    for _ in range(pages):
        answer = client.send({**body, "cursor": cursor})
        yield answer
        cursor = answer["cursor"]
        if cursor is None:
            return


def _show(answer: Mapping[str, Any]) -> None:
    note = f" · fallback: {answer['fallback']}" if answer["fallback"] else ""
    _write(f"{answer['bundle_id']}{note}", (), (((), answer),))


def _show_several(what: str, names: Iterable[object], answers: Sequence[Mapping[str, Any]]) -> None:
    notes = any(answer["fallback"] for answer in answers)
    head = (what, "fallback") if notes else (what,)
    labels = (
        (name, answer["fallback"] or "-") if notes else (name,)
        for name, answer in zip(names, answers, strict=True)
    )
    _write(answers[0]["bundle_id"], head, tuple(zip(labels, answers, strict=True)))


def _write(
    title: str,
    head: tuple[str, ...],
    answers: Sequence[tuple[tuple[object, ...], Mapping[str, Any]]],
) -> None:
    items = [(label, item) for label, answer in answers for item in answer["items"]]
    why = ("source", "learned", "popularity", "nearest")
    explained = any("why" in item for _, item in items)
    write_table(
        title,
        (*head, "item", "score", *(why if explained else ())),
        (
            (*label, item["item_id"], f"{item['score']:.4f}", *_why(item.get("why")))
            for label, item in items
        ),
        when_empty="no item fits the request",
    )


def _why(reasons: Mapping[str, Any] | None) -> list[str]:
    if reasons is None:
        return []
    parts = (reasons["learned"], reasons["popularity"])
    near = (f"{one['item_id']} ({one['likeness']:.2f})" for one in reasons["nearest"])
    return [
        str(reasons["source"]),
        *("-" if part is None else f"{part:.4f}" for part in parts),
        ", ".join(near) or "-",
    ]


def _split(pair: str) -> tuple[str, str]:
    name, separator, value = pair.partition("=")
    if not separator or not name:
        raise UsageError(f"expected name=value, got {pair!r}")
    return name, value


def _parse_requirement(text: str) -> list[str] | dict[str, float]:
    """A list of values, or a range ``low..high`` of which either end may be missing."""
    if ".." not in text:
        return text.split(",")
    low, _, high = text.partition("..")
    try:
        ends = {"min": low, "max": high}
        return {name: float(json.loads(end)) for name, end in ends.items() if end}
    except (ValueError, TypeError):
        raise UsageError(f"expected a range of numbers such as 5..20, got {text!r}") from None
