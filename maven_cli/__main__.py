"""The process: run the command line, and turn whatever it raised into one line and an exit code."""

from __future__ import annotations

import errno
import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn


def main() -> NoReturn:
    """Entry point of the `maven` command."""
    # Starting makes many objects and hardly any garbage: looking for it again and again while modules load, and once
    # more at the end, would be a quarter of a short command's CPU.
    gc.set_threshold(50_000)
    _open_streams()
    code = run(sys.argv[1:])
    gc.freeze()
    sys.exit(code)


def _open_streams() -> None:
    """Opens what was closed (`>&-`) on /dev/null: else the next socket would get the number of standard output."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115, PTH123 it stays open
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def run(args: list[str]) -> int:
    """Runs one command line and returns its exit code (the table is in docs/reference/exit-codes.md)."""
    try:
        return _run(args)
    except SystemExit as ended:
        # How Typer and Rich answer a reader that has gone.
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
    except BrokenPipeError:
        pass
    _discard_output()
    return 0


def _run(args: list[str]) -> int:
    import typer

    from maven_cli.cli.app import root_command
    from maven_cli.cli.command import shared
    from maven_cli.errors import InterruptedByUserError, MavenError, UsageError

    shared.path = ""
    try:
        code = root_command().main(args=args, prog_name="maven", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except MavenError as error:
        return _failed(args, str(error), error.exit_code)
    except typer.Abort:
        return _failed(args, "aborted", InterruptedByUserError.exit_code)
    except KeyboardInterrupt:
        return _failed(args, "interrupted", InterruptedByUserError.exit_code)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 the one boundary
        from typer._click.exceptions import ClickException, NoArgsIsHelpError

        if isinstance(error, NoArgsIsHelpError):
            error.show()
            return UsageError.exit_code
        if isinstance(error, ClickException):
            shared.path = getattr(getattr(error, "ctx", None), "command_path", "").partition(" ")[2]
            return _failed(args, _usage(error), UsageError.exit_code)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _failed(
                args, f"the disk is full ({error.filename or 'while writing'}); nothing was lost", 69
            )
        return _bug(args, error)


def _discard_output() -> None:
    """Sends what standard output still holds to nowhere; Python would complain once more while flushing at exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _usage(error: object) -> str:
    message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
    message = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    return f"{message}; see: {context.command_path} --help" if context is not None else message


def _failed(args: list[str], message: str, code: int) -> int:
    line = " ".join(message.split())
    with suppress(OSError):
        print(f"maven: {line}", file=sys.stderr)
    if "--json" in args:
        from maven_cli.cli.command import shared
        from maven_cli.cli.output import Result, document
        from maven_cli.runner import ItemError

        status = "skipped" if code == 75 else "error"
        try:
            print(document(shared.path, Result(None, None, [ItemError("", line)], status, code)), flush=True)
        except OSError:  # a full disk, or nobody reads it: the line above and the exit code remain
            _discard_output()
    return code


def _bug(args: list[str], error: Exception) -> int:
    """A defect of ours: the traceback goes to stderr, without local variables, which may hold secrets."""
    import traceback

    from maven_cli.db.connection import redact

    print(redact("".join(traceback.format_exception(error))), file=sys.stderr, end="")
    return _failed(
        args,
        f"a bug: {type(error).__name__}: {redact(str(error))}; please report it with the lines above",
        70,
    )


if __name__ == "__main__":
    main()
