"""The `playrelay` command. Each subcommand imports what it needs, so that `--help` answers at once."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pipelines import logs
from pipelines.printable import printable

if TYPE_CHECKING:
    from pipelines.relay_file import Relay
    from transforms.map_records import Selection

USAGE = 2
"""Exit code for a wrong command line, relay file, credential or input."""

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _version(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    from importlib import metadata

    try:
        click.echo(f"playrelay {metadata.version('playrelay')}")
    except metadata.PackageNotFoundError:
        click.echo("playrelay, run from its source without being installed")
    context.exit()


@click.group(context_settings=CONTEXT)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
def main() -> None:
    """Relay game telemetry to 12traits, Traitly, Parcelvoy, Swrve and Teak."""
    logs.set_up()


def _relay_argument(function: Any) -> Any:
    return click.argument("relay", type=click.Path(dir_okay=False))(function)


def _only_option(function: Any) -> Any:
    return click.option(
        "--only", multiple=True, metavar="DEST", help="Relay to this destination only; may be given several times."
    )(function)


@main.command()
@_relay_argument
@click.option("--input", "inputs", multiple=True, required=True, metavar="GLOB", help="Files to read; repeatable.")
@click.argument("more_inputs", nargs=-1, metavar="[GLOB]...")
@click.option("--dead-letters", metavar="PLACE", help="For dead letters: a folder, gs://, or projects/P/topics/T.")
@click.option("--report", metavar="FILE", help="Write the run report as JSON, on disk or gs://.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Read the first N records only.")
@click.option("--since", metavar="TIME", help="Relay records from this time on (2026-11-24, or with T08:00:00Z).")
@click.option("--until", metavar="TIME", help="Relay records before this time.")
@_only_option
@click.option("--max-rejected", type=click.IntRange(min=0), metavar="N", help="Exit with 3 above N rejected records.")
@click.option("--state", metavar="DIR", help="Keep there what is done: the same command goes on after a kill.")
@click.option("--again", is_flag=True, help="With --state: send again what was sent before.")
@click.option("--quiet", is_flag=True, help="No progress, no table.")
def run(
    relay: str,
    inputs: tuple[str, ...],
    more_inputs: tuple[str, ...],
    dead_letters: str | None,
    report: str | None,
    limit: int | None,
    since: str | None,
    until: str | None,
    only: tuple[str, ...],
    max_rejected: int | None,
    state: str | None,
    again: bool,
    quiet: bool,
) -> None:
    """Relay files to the destinations of RELAY and account for every record.

    Exit codes: 0 all accounted for and nothing undelivered; 2 usage, relay file, or a disk that takes nothing; 3 items
    undelivered, or more rejected than --max-rejected; 4 the sums do not add up. What waits for a slow vendor is in the
    state folder, else in the folder that TMPDIR names: up to 8 GB.
    """
    from pipelines import run_files

    if state is None and again:
        _fail("--again goes with --state: without a state folder, every run sends everything")
    if state is not None and limit is not None:
        _fail("--limit does not go with --state: a part of the records would count as read")
    loaded = _load(relay)
    selection = _selection(since, until, limit)
    with _Explained():
        code = run_files.run_files(
            loaded,
            inputs + more_inputs,
            selection=selection,
            only=only,
            dead_letters=dead_letters,
            report=report,
            max_rejected=max_rejected,
            quiet=quiet,
            state=state,
            again=again,
        )
    sys.exit(code)


@main.command()
@_relay_argument
@click.option("--subscription", required=True, metavar="NAME", help="Pub/Sub subscription, projects/P/subscriptions/S.")
@click.option("--dead-letters", metavar="PLACE", help="Folder, gs:// or topic.  [default: dead-letters in --state]")
@click.option(
    "--state", metavar="DIR", help="Where what waits is kept.  [default: .playrelay/ and the subscription's name]"
)
@click.option("--report", metavar="FILE", help="Write the report as JSON when the stream ends, on disk or gs://.")
@_only_option
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How logs are written."
)
@click.option("--metrics-port", type=click.IntRange(0, 65535), metavar="PORT", help="Serve Prometheus metrics there.")
@click.option(
    "--metrics-host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to serve them at."
)
@click.option("--quiet", is_flag=True, help="No live view, no table.")
def stream(
    relay: str,
    subscription: str,
    dead_letters: str | None,
    state: str | None,
    report: str | None,
    only: tuple[str, ...],
    log_format: str,
    metrics_port: int | None,
    metrics_host: str,
    quiet: bool,
) -> None:
    """Relay a Pub/Sub subscription to the destinations of RELAY until it is stopped (Ctrl-C, SIGTERM).

    Messages are acknowledged when each of their outcomes is on disk or delivered. Items for a vendor that is down wait in
    the state folder and go out when it is back. Exit codes: 0 stopped in order; 2 usage, relay file, or a disk that
    takes nothing; 4 the sums do not add up.
    """
    from pipelines import run_stream
    from transforms.subscriber import short_name

    with _Explained():
        name = short_name(subscription)
        code = run_stream.run_stream(
            _load(relay),
            subscription,
            state=state or f".playrelay/{name}",
            only=only,
            dead_letters=dead_letters,
            report=report,
            log_format=log_format,
            metrics=None if metrics_port is None else (metrics_host, metrics_port),
            quiet=quiet,
        )
    sys.exit(code)


@main.command()
@_relay_argument
@click.option(
    "--from", "place", required=True, metavar="PLACE",
    help="Folder of dead letters, or a subscription to a topic of them, projects/P/subscriptions/S.",
)  # fmt: skip
@_only_option
@click.option("--reason", default="", metavar="PATTERN", help="Only letters whose reason has a match of this.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent; send nothing.")
@click.option("--as-mapped", is_flag=True, help="Send the stored payloads instead of mapping the records anew.")
@click.option("--dead-letters", metavar="PLACE", help="Where what fails again goes.  [default: the same folder]")
@click.option("--state", metavar="DIR", help="Where what waits is kept.  [default: .replay in the folder]")
@click.option("--reopen", is_flag=True, help="Send also what waits in a state folder that is lost.")
@click.option("--report", metavar="FILE", help="Write the report as JSON, on disk or gs://.")
@click.option("--quiet", is_flag=True, help="No table.")
def replay(
    relay: str,
    place: str,
    only: tuple[str, ...],
    reason: str,
    dry_run: bool,
    as_mapped: bool,
    dead_letters: str | None,
    state: str | None,
    reopen: bool,
    report: str | None,
    quiet: bool,
) -> None:
    """Send dead letters again, once their cause is mended.

    A record is mapped anew from its original bytes, for the destination and model that it failed at. What was replayed
    is marked and not sent twice; what fails again stays, with its first reason and a count. Exit codes: 0 all that was
    sent is accounted for and nothing undelivered; 2 usage or relay file; 3 items undelivered, or letters wait elsewhere:
    it says how they are sent; 4 the sums do not add up.
    """
    import re

    from pipelines import replay as replaying

    try:
        re.compile(reason)
    except re.error as error:
        _fail(f"--reason: {reason} is no regular expression: {error}")
    loaded = _load(relay)
    with _Explained():
        code = replaying.replay(
            loaded,
            place,
            choice=replaying.Choice(only, reason),
            dry_run=dry_run,
            as_mapped=as_mapped,
            state=state,
            dead_letters=dead_letters,
            reopen=reopen,
            report=report,
            quiet=quiet,
        )
    sys.exit(code)


@main.command()
@click.option("--state", required=True, metavar="DIR", help="A state folder of `run` or `stream`.")
def status(state: str) -> None:
    """Show what a state folder holds: what became of the records read, and what waits."""
    from pipelines.stream_display import show_status
    from transforms.ledger_reader import read_ledger

    with _Explained(), contextlib.closing(read_ledger(state)) as ledger:
        show_status(ledger)


@main.command()
@_relay_argument
@click.option("--explain", is_flag=True, help="Print the Python that each mapping is compiled to.")
@click.option("--credentials", is_flag=True, help="Also resolve the credentials' references.")
@_only_option
def check(relay: str, explain: bool, credentials: bool, only: tuple[str, ...]) -> None:
    """Check RELAY, its mappings and schemas, without reading or sending anything."""
    from pipelines import display
    from pipelines.plan import check_credentials, make_plan

    loaded = _load(relay)
    with _Explained():
        plan, mappers = make_plan(loaded, only=only)
        if credentials:
            check_credentials(plan)
    if explain:
        for mapper in mappers.values():
            click.echo(printable(mapper.code))
        return
    display.show_plan(plan, mappers)


@main.command()
@_relay_argument
@click.option("--input", "inputs", multiple=True, required=True, metavar="GLOB", help="File to take records from.")
@click.option("-n", "number", type=click.IntRange(min=1), default=5, show_default=True, help="Records to show.")
@_only_option
def preview(relay: str, inputs: tuple[str, ...], number: int, only: tuple[str, ...]) -> None:
    """Show, for single records, every request each vendor would get. Sends nothing."""
    from pipelines import preview as previewing
    from pipelines.plan import make_plan

    loaded = _load(relay)
    with _Explained():
        plan, _ = make_plan(loaded, only=only)
        for line in previewing.preview(plan, inputs, number):
            click.echo(printable(line))


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), default=9000, show_default=True, help="Port on 127.0.0.1.")
def sandbox(port: int) -> None:
    """Serve the five vendors' endpoints on this machine, as strict as their documents."""
    from sandbox.server import serve

    try:
        with contextlib.suppress(KeyboardInterrupt):  # how it is meant to be stopped
            serve(port)
    except OSError as error:
        _fail(f"port {port}: {error.strerror}; choose another with --port, 0 for any that is free")


@main.command()
@click.argument("vendors", nargs=-1, metavar="[VENDOR]...")
@click.option("--preset", default="canonical", show_default=True, help="Where the records come from.")
@click.option("-o", "--output", metavar="FILE", help="Write here instead of to the terminal.")
@click.option(
    "--sandbox", "to_sandbox", metavar="URL", help="Base URL of a sandbox to send to, instead of the vendors."
)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
def init(vendors: tuple[str, ...], preset: str, output: str | None, to_sandbox: str | None, force: bool) -> None:
    """Write a commented relay file for the chosen vendors (all five when none is named)."""
    from pipelines import init as initial

    with _Explained():
        text = initial.relay_file(vendors, preset, to_sandbox)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with open(output, "w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        _fail(f"{output} exists; give --force to overwrite it")
    except OSError as error:
        _fail(f"{output}: {error.strerror}")
    click.echo(f"{output} written; next: playrelay check {output}", err=True)


@main.command("dead-letters")
@click.argument("location", metavar="DIR")
@click.option("--only", multiple=True, metavar="DEST", help="Letters of this destination only; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the groups as JSON.")
def dead_letters_(location: str, only: tuple[str, ...], as_json: bool) -> None:
    """Show what is in DIR (on disk or gs://), grouped by cause, with the likely remedy.

    What playrelay replay sent again is left out, and counted. Changes nothing.
    """
    from pipelines.dead_letters import dead_letters

    with _Explained():
        dead_letters(location, only, as_json)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell, for example: eval "$(playrelay completion bash)"."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "playrelay", "_PLAYRELAY_COMPLETE").source())


class _Explained:
    """Turns the errors that a user can mend into messages and exit code 2; anything else is a bug and shows itself."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # Click ends quietly for a pipe whose reader has gone.
        if error is None or isinstance(error, click.exceptions.Exit | SystemExit | KeyboardInterrupt | BrokenPipeError):
            return
        from pipelines.explain import explained

        lines = explained(error)
        if lines is not None:
            _fail(*lines)


def _load(path: str) -> Relay:
    from pipelines.plan import load

    with _Explained():
        relay = load(path)
    if relay.warnings:
        from pipelines.explain import warned

        logs.tell(warned(relay.warnings))
    return relay


def _selection(since: str | None, until: str | None, limit: int | None) -> Selection:
    from pipelines.quantities import point_in_time
    from transforms.map_records import Selection

    def when(option: str, text: str | None) -> int | None:
        try:
            return None if text is None else point_in_time(text)
        except ValueError as error:
            _fail(f"{option}: {error}")

    return Selection(when("--since", since), when("--until", until), limit)


def _fail(*lines: str) -> NoReturn:
    logs.tell(lines)
    sys.exit(USAGE)


def run_main(arguments: Sequence[str] | None = None) -> None:
    """Entry point for tests and `python -m pipelines.cli`."""
    main(args=list(arguments) if arguments is not None else None, prog_name="playrelay")


if __name__ == "__main__":
    run_main()
