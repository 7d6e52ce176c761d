"""`linodctl metrics`: all sites in figures, for Prometheus and everything else that reads its format."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .. import __version__
from ..errors import LinodError
from ..sites import HostSite
from .exposition import Format, expose
from .families import Metrics
from .footing import opened
from .measures import SiteMeasures, measure, tell
from .naming import sites_or_all
from .parsing import Command, Options
from .screen import warn
from .survey import survey

AT_ONCE = 8  # sites; one that keeps us waiting doesn't keep the others from being looked at


class MetricsCommand(Command):
    details = (
        "Without SITE, those of all sites. A site that cannot be looked at has linod_site_up 0 or"
        " linod_site_history_readable 0, and the reason is told on standard error."
    )
    takes_json = False
    examples = (
        "linodctl metrics",
        "linodctl metrics myprj --format prometheus | promtool check metrics",
        "linodctl metrics --output /var/lib/prometheus/node-exporter/linod.prom",
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("sites", metavar="SITE", nargs="*", help="names of sites")
        parser.add_argument(
            "--output", metavar="FILE", help="write it there, whole or not at all, in Prometheus's own format"
        )
        parser.add_argument(
            "--format",
            choices=[one.value for one in Format],
            help="openmetrics, or prometheus: the only one that node_exporter reads",
        )

    def run(self, options: Options) -> int:
        format = Format(options.format or (Format.PROMETHEUS if options.output else Format.OPENMETRICS))
        text = expose(collect(sites_or_all(options.sites)).families.values(), format)
        if options.output:
            publish(Path(options.output).absolute(), text)
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(text.encode())  # both formats are UTF-8, whatever this terminal is
        return 0


def collect(sites: Sequence[HostSite]) -> Metrics:
    """The metrics of these sites. What is wrong with one is told."""
    metrics = Metrics()
    metrics.add("linod_build", 1, version=__version__)
    metrics.add("linod_collected_timestamp_seconds", time.time())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found: list[SiteMeasures] = list(pool.map(measure, survey(sites, pool.map)))
    for one in found:
        for problem in one.problems:
            warn(f"{one.survey.site.name}: {problem}")
        tell(metrics, one)
    return metrics


def publish(path: Path, text: str) -> None:
    """Put a text in the place of a file, for all to read. Whoever reads it finds all of the old or of the new one."""
    part = f".{path.name}.{os.getpid()}"  # not .prom: node_exporter would read that as well
    with opened(path.parent) as directory:
        try:
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
            try:
                with open(fd, "wb") as file:
                    os.fchmod(fd, 0o644)
                    file.write(text.encode())
                os.rename(part, path.name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                os.unlink(part, dir_fd=directory)
                raise
        except OSError as error:
            raise LinodError(f"{path} cannot be written: {error.strerror}.") from None
