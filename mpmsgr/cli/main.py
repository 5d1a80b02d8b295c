"""``mpmsgr VERB ...``: finds the verb, turns every error into one line and an exit code."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from mpmsgr.cli.exit_codes import ExitCode, exit_code_of
from mpmsgr.cli.verbs import Verbs
from mpmsgr.errors import MessengerError, PluginError

VERBS = {
    "serve": "Start a server: I/O process, workers, dispatcher modules.",
    "new": "Make a plugin project one can run at once.",
    "ping": "Shake hands with a peer and print what it says.",
    "send": "Send one request and print its reply.",
    "load": "Put a server under load and verify every reply.",
    "status": "Print the state of a running server.",
    "top": "Watch it: rates, workers, busiest sessions.",
    "health": "Tell whether it is well.",
    "sessions": "List its sessions.",
    "workers": "List its workers and what they run.",
    "config": "Show and change its settings.",
    "log": "Change what it logs.",
    "perf": "Print its counters.",
    "kick": "End one of its sessions.",
    "drain": "Stop it in order.",
    "reload": "Roll its workers.",
    "scale": "Change the number of its workers.",
    "throttles": "List its throttles.",
    "lanes": "List its lanes.",
    "arena": "Show its shared memory.",
    "state": "List the state its handlers keep.",
    "groups": "List its groups of connections.",
    "plugins": "List and check dispatcher modules.",
    "completion": "Print the shell's completion script.",
    "doctor": "Tell what this machine gives a server.",
    "version": "Print the version.",
    "quarantine": "See, replay or discard messages that were set aside.",
}


class LazyVerbs(Verbs):
    """Loads ``mpmsgr.cli.VERB`` when VERB is asked for, so that each pays for itself only."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order one meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The verb's command, None if there is no such verb."""
        if name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"mpmsgr.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without loading them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=LazyVerbs,
    subcommand_metavar="VERB [ARGS]...",
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", is_flag=True, help="Print the version.")
@click.pass_context
def cli(ctx: click.Context, version: bool) -> None:
    """A messenger whose handlers run on all cores."""
    if version:
        ctx.invoke(cli.get_command(ctx, "version"))  # type: ignore[arg-type]
        ctx.exit()
    if ctx.invoked_subcommand is None:
        raise click.UsageError(f"a verb is missing, one of {', '.join(VERBS)}", ctx)


def main(*verb: str) -> NoReturn:
    """The console script: runs the command line, which *verb* may begin, and exits."""
    code = run([*verb, *sys.argv[1:]])
    _flush()
    sys.exit(code)


def run(args: Sequence[str]) -> int:
    """Run one command; return its exit code, having said on stderr what went wrong."""
    try:
        result = cli.main(list(args), prog_name="mpmsgr", standalone_mode=False)
        return result if isinstance(result, int) else ExitCode.OK
    except click.ClickException as exc:
        return _complain(args, _usage_text(exc), ExitCode.USAGE)
    except PluginError as exc:
        return _complain(args, _with_traceback(exc), ExitCode.PLUGIN)
    except MessengerError as exc:
        return _complain(args, str(exc), exit_code_of(exc))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except OSError as exc:
        return _complain(args, str(exc), ExitCode.FAILED)
    except (click.Abort, KeyboardInterrupt):
        return _complain(args, "interrupted", ExitCode.INTERRUPTED)


def _complain(args: Sequence[str], text: str, code: ExitCode) -> ExitCode:
    verb = next((arg for arg in args if arg in VERBS), "")
    click.echo(f"{f'mpmsgr {verb}'.strip()}: {' '.join(text.split())}", err=True)
    return code


def _with_traceback(exc: PluginError) -> str:
    """One line for the error; the traceback of a plugin's own code is written before it."""
    lines = exc.text.strip().splitlines()
    if len(lines) > 1:
        click.echo(exc.text.rstrip(), err=True)
    return f"{exc.module}: {lines[-1] if lines else 'cannot be loaded'}"


def _usage_text(exc: click.ClickException) -> str:
    """What is wrong and what is allowed, in click's words where they are good enough."""
    usage = exc.ctx.get_usage() if isinstance(exc, click.UsageError) and exc.ctx else ""
    allowed = "; " + usage.replace("Usage:", "usage:") if usage else ""
    if isinstance(exc, click.MissingParameter):
        from mpmsgr.cli.params import label_of  # late: with it comes the whole configuration

        return f"{label_of(exc.param)} is missing{allowed}"
    if isinstance(exc, click.NoSuchOption):
        known = [opt for p in exc.ctx.command.params for opt in p.opts] if exc.ctx else []
        options = [opt for opt in known if opt.startswith("--")] + ["--help"]
        near = difflib.get_close_matches(exc.option_name, options, n=1)
        known_as = f", the nearest is {near[0]}" if near else f"; options: {', '.join(options)}"
        return f"no such option {exc.option_name}{known_as}{allowed}"
    text = exc.format_message().rstrip(".")
    return text if "verb" in text else f"{text[:1].lower()}{text[1:]}{allowed}"


def _flush() -> None:
    """Write out what is buffered now: at interpreter exit a closed pipe would print a traceback."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
