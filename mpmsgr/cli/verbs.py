"""Groups of verbs: ``mpmsgr VERB``, ``mpmsgr quarantine VERB``."""

from __future__ import annotations

import difflib

import click


class Verbs(click.Group):
    """A group whose help and errors speak of verbs, in the order one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order they were added."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb *args* starts with. Raises UsageError naming the nearest one."""
        verbs = self.list_commands(ctx)
        if args[0].startswith("-") or args[0] in verbs:
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(args[0], verbs, n=1, cutoff=0.0)[0]
        raise click.UsageError(
            f"{args[0]!r} is no verb, the nearest is {near}; verbs: {', '.join(verbs)}", ctx
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs with their first sentence."""
        with formatter.section("Verbs"):
            formatter.write_dl([(n, c.get_short_help_str(80)) for n, c in self.commands.items()])
