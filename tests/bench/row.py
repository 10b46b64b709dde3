"""What a row of the benchmarks is. Its begun(stage, check) is what stays as it is from round to round, a stage unless a row says
otherwise; measure(of that, check) is one round with one contender: it returns figures by name, None for what cannot be had here.

A machine that others share runs faster and slower by the second: what is compared must be measured within one. So rounds are short
and many, and connections stay from one to the next where opening them would be most of a round."""

import contextlib
import resource
from dataclasses import dataclass, field

import proxies

KB, MB, GB = 1000, 1000 * 1000, 1000 * 1000 * 1000


@dataclass
class Row:
    name: str
    title: str
    units: dict  # of each figure, in the order of the table
    contenders: tuple = (proxies.FOREBAY, proxies.NGINX, proxies.HAPROXY)
    notes: dict = field(default_factory=dict)  # contender's name: what to know about its figures
    rounds: int = 5
    anew: bool = False  # each round with a proxy that has served nothing before
    chart: dict = field(default_factory=dict)  # the figures of the chart, with their labels; the first one if none is said
    rates: tuple = ()  # the figures of which more is better
    by_line: bool = False  # the table has a line for each contender, though there are several figures

    def stage(self, contender, programs, folder):
        return proxies.Stage(contender, programs, folder)

    def begun(self, stage, _check):
        """A context, for all rounds with this stage."""
        return contextlib.nullcontext(stage)

    def measure(self, begun, check):
        raise NotImplementedError

    def remarks(self, _rounds):
        """What is to be known about one contender's rounds."""
        return []

    def charted(self):
        return self.chart or {next(iter(self.units)): self.name}


def within_limits(connections):
    """As many as the load's and the proxy's descriptors allow."""
    return min(connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 2000)
