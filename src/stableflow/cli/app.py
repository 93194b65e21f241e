"""`stableflow app`: edit in a browser."""

import os
import webbrowser
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from stableflow.cli.grouped import grouped
from stableflow.cli.options import SHAPING, ModelOptions
from stableflow.cli.output import Format, Reporter, visible
from stableflow.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    import socket

    import uvicorn

    from stableflow.app.house import House
    from stableflow.app.limits import Limits
    from stableflow.app.studio import Workshop

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
PASSWORDS = "STABLEFLOW_APP_USERS"


@dataclass(frozen=True)
class DoorOptions:
    """Where the app is, and who may come in."""

    title: ClassVar[str] = "Door"

    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1"
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 7860
    browser: Annotated[bool, typer.Option("--browser", help="Open a browser.")] = False
    users: Annotated[
        Path | None, typer.Option("--users", help=f"File of user:password lines [the variable {PASSWORDS}].")
    ] = None
    allow_host: Annotated[list[str] | None, typer.Option("--allow-host", help="Another name of this app.")] = None
    proxy: Annotated[
        bool, typer.Option("--proxy", help="A proxy in front says who asks (X-Forwarded-For); only if there is one.")
    ] = False
    frames: Annotated[str | None, typer.Option("--frames", help="A site that may show the app in a frame.")] = None
    content: Annotated[str | None, typer.Option("--filter", help="Content filter: nsfw, or package.module:Class.")] = (
        None
    )
    mcp: Annotated[bool, typer.Option("--mcp", help="Serve assistants by the Model Context Protocol at /mcp.")] = False
    credentials: Annotated[
        Path | None,
        typer.Option("--credentials", help="Folder of certificate.pem and key.pem that sign pictures (C2PA)."),
    ] = None


@dataclass(frozen=True)
class LimitOptions:
    """How much one may ask for."""

    title: ClassVar[str] = "Limits"

    waiting: Annotated[int, typer.Option("--waiting", min=1, help="Requests that may wait.")] = 24
    rate: Annotated[int, typer.Option("--rate", min=1, help="Requests a minute of one visitor.")] = 60
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="That one request may run.")] = 600.0
    keep_days: Annotated[float, typer.Option("--keep-days", min=0.01, help="That unused files stay.")] = 30.0

    def limits(self) -> "Limits":
        """Return the app's limits."""
        from stableflow.app.limits import Limits

        return Limits(waiting=self.waiting, rate=self.rate, seconds=self.seconds, keep_days=self.keep_days)


@grouped
def app(
    model: ModelOptions,
    door: DoorOptions,
    limit: LimitOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for what visitors make.")] = Path("out/app"),
) -> None:
    """Open the web app: edit pictures in a browser, on this machine alone unless --host says otherwise."""
    try:
        from stableflow.app.studio import Studio
    except ImportError as error:
        raise MissingExtraError("The web app needs its extra: pip install 'stableflow[app]'.") from error
    reporter, limits = Reporter(quiet=False, form=Format.text), limit.limits()
    loaded = loading_of(model)
    open_door(
        lambda: {loaded["model"]: Studio(model.open(reporter), loaded, limits)}, loaded, door, limits, out, reporter
    )


def loading_of(model: ModelOptions) -> dict[str, Any]:
    """Return what a model is and how it is loaded, by the names of an order."""
    return {"model": "tiny"} | {name: value for name in SHAPING if (value := getattr(model, name)) is not None}


def open_door(
    opening: "Callable[[], Mapping[str, Workshop]]", loaded: dict[str, Any], door: DoorOptions, limits: "Limits",
    out: Path, reporter: Reporter, *, hands: int = 1,
) -> None:  # fmt: skip
    """Serve pages and programs until interrupted; see `House`."""
    import uvicorn

    from stableflow.app.credentials import read_credentials
    from stableflow.app.filters import make_filter
    from stableflow.app.guard import Door
    from stableflow.app.house import House
    from stableflow.app.server import make_server

    failures = list[BaseException]()

    def failed(error: BaseException) -> None:
        failures.append(error)
        running.should_exit = True

    house = House(
        opening, loaded, out, limits=limits, content=make_filter(door.content),
        credentials=read_credentials(door.credentials), failed=failed, hands=hands,
    )  # fmt: skip
    known, local = read_users(door.users), door.host in LOOPBACK
    hosts = [name.lower() for name in [*(LOOPBACK if local else ()), *(door.allow_host or ())]]
    server = make_server(house, Door(hosts=hosts, users=known, frames=door.frames or "'none'"), mcp=door.mcp)
    config = uvicorn.Config(
        server, host=door.host, port=door.port, log_level="warning", access_log=False, server_header=False,
        timeout_keep_alive=20, limit_concurrency=400, ws="none", proxy_headers=door.proxy,
        forwarded_allow_ips="*" if door.proxy else None,
    )  # fmt: skip
    running = uvicorn.Server(config)
    if not local and not known:
        reporter.say(f"warning: everybody who reaches {door.host} can use this app; --users asks for a password.")
    _serve(house, running, _listening(door), reporter, browser=door.browser)
    if failures:
        raise failures[0]


def _listening(door: DoorOptions) -> "socket.socket":
    """A socket at the address.

    Raises:
        InputError: It is taken, or not this machine's.
    """
    import socket

    family = socket.AF_INET6 if ":" in door.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((door.host.strip("[]"), door.port))
    except OSError as error:
        found.close()
        raise InputError(
            f"The app cannot listen at {visible(door.host)}:{door.port}: {error.strerror or error}. Another app may "
            "run there; choose another --port, or 0 for any."
        ) from error
    return found


def _serve(
    house: "House", running: "uvicorn.Server", listening: "socket.socket", reporter: Reporter, *, browser: bool
) -> None:
    """Say where the app is, and serve until interrupted."""
    address, port = listening.getsockname()[:2]
    shown = f"http://{'127.0.0.1' if address in ('0.0.0.0', '::') else address}:{port}"
    house.open()
    reporter.say(f"stableflow app: {shown}   (Ctrl-C ends it)")
    if browser:
        webbrowser.open(shown)
    try:
        running.run(sockets=[listening])
    finally:
        house.close()


def read_users(path: Path | None) -> tuple[tuple[str, str], ...]:
    """Return users and passwords, from a file or the environment; never from the command line, which others see.

    Raises:
        InputError: The file is missing, or a line is no user:password.
    """
    try:
        text = os.environ.get(PASSWORDS, "") if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--users: {visible(str(path))} cannot be read: {error}.") from error
    users = []
    for number, line in enumerate(text.splitlines(), start=1):
        user, colon, password = line.strip().partition(":")
        if line.strip() and not (user and colon and len(password) >= 8):
            raise InputError(f"--users: line {number} is no user:password with at least 8 characters of password.")
        users += [(user, password)] if line.strip() else []
    return tuple(users)
