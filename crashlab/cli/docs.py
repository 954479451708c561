"""How does somebody at a terminal read the pages of the package?"""

import difflib
import os
import re
import sys
from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

from crashlab import pages
from crashlab.pages import Page, Passage

WIDTH_MAX = 100
_LINK_TO_A_PAGE = re.compile(r"\[([^\]]+)\]\((?![a-z]+:)[^)]*\)")


class PageName(click.ParamType[str]):
    """A page's name."""

    name = "page"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the pages for users."""
        known = pages.pages().values()
        return [CompletionItem(page.name, help=page.summary) for page in known if page.name.startswith(incomplete)]


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("page", required=False, type=PageName(), metavar="[PAGE|NAME]")
def docs(page: str | None) -> None:
    """List the pages of the manual, print one, or find what is said about a name.

    A NAME is a finding's code, a profile, one of its keys, a command or an option.
    """
    if page is None:
        _print_list()
    elif (found := pages.find_page(page)) is not None:
        _print_page(found)
    else:
        _print_passages(page)


def _print_list() -> None:
    users, contributors = pages.pages(), pages.pages(pages.CONTRIBUTORS)
    width = max(map(len, [*users, *contributors]))
    for page in users.values():
        click.echo(f"{page.name:<{width}}  {page.summary}")
    click.echo("\nFor those who change crashlab:")
    for page in contributors.values():
        click.echo(f"{page.name:<{width}}  {page.title}")


def _print_page(page: Page) -> None:
    """Print it as it is stored, or on a terminal as it is meant, through a pager if it is longer than the screen."""
    if not sys.stdout.isatty():
        click.echo(page.text, nl=False)
        return
    os.environ.setdefault("LESS", "-FRX")
    click.echo_via_pager(_rendered(page.text))


def _rendered(text: str) -> str:
    """Return Markdown for this terminal; a link to another page leads nowhere here, and is its text."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(emoji=False)
    console.width = min(console.width, WIDTH_MAX)
    with console.capture() as captured:
        console.print(Markdown(_LINK_TO_A_PAGE.sub(r"\1", text), hyperlinks=False))
    return captured.get()


def _print_passages(word: str) -> None:
    found = sorted(pages.passages(word) if word else [], key=lambda passage: not passage.defines(word))
    if not found:
        raise pages.unknown_page(word)
    for line in _passage_lines(found):
        click.echo(line)
    for command in _more_about(word):
        click.echo(f"\nMore: {command}")


def _passage_lines(found: Iterable[Passage]) -> Iterable[str]:
    place = None
    for passage in found:
        if place != (passage.page, passage.heading):
            yield f"{'' if place is None else chr(10)}crashlab docs {passage.page}: {passage.heading}"
        place = (passage.page, passage.heading)
        for line in passage.text.splitlines():
            yield f"    {line}"


def _more_about(word: str) -> Iterable[str]:
    """Yield the commands that say more about this very name."""
    from crashlab.cli import cli
    from crashlab.oracle.codes import CODES
    from crashlab.profile import list_profiles

    if near := difflib.get_close_matches(word.lower(), pages.pages(), n=1, cutoff=0.85):
        yield f"crashlab docs {near[0]}"
    if word.upper() in CODES:
        yield f"crashlab explain {word.upper()}"
    if word in list_profiles():
        yield f"crashlab profiles {word}"
    if word in cli.commands:
        yield f"crashlab {word} --help"
