"""A real SMTP server in a process of its own, which stores each mail as a file and can be told to be difficult.

    python -m tests.support.smtp --port 2525 --dir /tmp/mails

Its first line of output names the port; with --verbose each mail and each refusal is a line. Tests use `Server`.
"""

import argparse
import asyncio
import contextlib
import email
import email.policy
import re
import signal
import ssl
import sys
from pathlib import Path
from random import Random

from tests.support.serving import Served


class Server(Served):
    """Run the server for as long as the `with` block lasts, on a free port unless one is given.

    Options are those of the command line: `Server(tmp_path, "--refuse", "eva")`.
    """

    module, name = "tests.support.smtp", "SMTP"

    def __init__(self, directory, *options, port=0):
        super().__init__(directory, "--until-eof", *options, port=port)

    @property
    def mails(self):
        """All mails received so far, in the order of their arrival, as EmailMessage."""
        return [
            email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            for path in sorted(self.directory.glob("*.eml"))
        ]


class Handler:
    """What the server answers, and what it keeps."""

    def __init__(self, options):
        self.options = options
        self.attempts = {}  # by recipient
        self.transactions = 0
        options.dir.mkdir(parents=True, exist_ok=True)
        self.stored = max((int(path.stem) for path in options.dir.glob("*.eml")), default=0)

    async def handle_MAIL(self, server, session, envelope, address, mail_options):
        if self.options.refuse_while and self.options.refuse_while.exists():
            return self.refuse(f"451 Closed for now, {address}")
        envelope.mail_from = address
        envelope.mail_options.extend(mail_options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if self.options.refuse and self.options.refuse.search(address):
            return self.refuse(f"550 No such user: {address}")
        if self.is_busy_for(address):
            return self.refuse(f"451 Busy, try again later: {address}")
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.transactions += 1
        if self.options.drop_every and self.transactions % self.options.drop_every == 0:
            self.say("hung up")
            server.transport.abort()
            return "421 Gone"
        self.store(envelope)
        await asyncio.sleep(self.options.delay)
        return "250 OK"

    def authenticate(self, server, session, envelope, mechanism, data):
        from aiosmtpd.smtp import AuthResult

        given = f"{data.login.decode()}:{data.password.decode()}"
        return AuthResult(success=given == self.options.login, handled=False)

    def is_busy_for(self, address):
        """Decide by recipient and attempt, so that the order of the mails doesn't matter."""
        attempt = self.attempts[address] = self.attempts.get(address, 0) + 1
        return Random(f"{self.options.seed} {address} {attempt}").random() < self.options.busy

    def refuse(self, answer):
        self.say(answer)
        return answer

    def store(self, envelope):
        self.stored += 1
        path = self.options.dir / f"{self.stored:06}.eml"
        # Under a name that readers don't look for, until it is whole.
        part = path.with_suffix(".part")
        part.write_bytes(envelope.content)
        part.rename(path)
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.say(f"mail for {', '.join(envelope.rcpt_tos)}: {mail['Subject']}")

    def say(self, text):
        if self.options.verbose:
            print(text, flush=True)


async def serve(options):
    from aiosmtpd.smtp import SMTP

    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in signal.SIGINT, signal.SIGTERM:
        loop.add_signal_handler(number, over.set)
    if options.until_eof:
        loop.add_reader(sys.stdin, over.set)
    handler = Handler(options)
    context = None
    if options.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.certificate)
    server = await loop.create_server(
        lambda: SMTP(
            handler,
            enable_SMTPUTF8=True,
            ident="linod test server",
            tls_context=context if options.starttls else None,
            require_starttls=options.starttls,
            authenticator=handler.authenticate if options.login else None,
            auth_required=bool(options.login),
            auth_require_tls=options.starttls,
        ),
        "127.0.0.1",
        options.port,
        ssl=None if options.starttls else context,
    )
    print(f"Listening on 127.0.0.1 port {server.sockets[0].getsockname()[1]}", flush=True)
    await over.wait()
    server.close()


def parse_options():
    parser = argparse.ArgumentParser(prog="python -m tests.support.smtp", description=__doc__)
    add = parser.add_argument
    add("--port", type=int, default=0, help="default: a free one")
    add("--dir", type=Path, required=True, help="where to store the mails")
    add("--refuse", type=re.compile, metavar="PATTERN", help="say 550 to these recipients")
    add("--busy", type=float, default=0, metavar="SHARE", help="say 451 to a share of recipients")
    add("--seed", default="1", help="decides which recipients these are")
    add("--refuse-while", type=Path, metavar="FILE", help="say 451 to all while FILE exists")
    add("--drop-every", type=int, metavar="N", help="hang up instead of taking every Nth mail")
    add("--delay", type=float, default=0, metavar="S", help="seconds between storing and answering")
    add("--login", metavar="USER:PASSWORD", help="take mail only from who knows them")
    add("--certificate", type=Path, metavar="PEM", help="speak TLS, with a certificate and its key")
    add("--starttls", action="store_true", help="not from the first byte, but after STARTTLS")
    add("--verbose", action="store_true", help="print a line for each mail and refusal")
    add("--until-eof", action="store_true", help="end when standard input is closed")
    return parser.parse_args()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parse_options()))
