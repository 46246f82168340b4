"""Whether what a call may cost is held before it runs, and of what.

    free, or the system's                          nothing
    its key has a cap                              held of the cap; of the balance too, where it would be without a cap
    the account has less than `credits.reserve_below`   held of the balance
    otherwise                                      nothing is held, as long as what runs here unheld of that account is little of what it has

So most calls cost no statement, and no account is overrun by more than a share of itself for each process: what runs unheld in one is at most a
hundredth of what the account is known to have (a lower bound, heard within a second of its change); what would be more is held. Beyond that only
calls overrun a balance whose requests do not say how long an answer may become: such a call holds a guess, or what is left if that is less.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from dwctl.ai.admission import Admitted
from dwctl.billing import estimates, levels, money
from dwctl.billing.estimates import Estimate
from dwctl.billing.money import LARGEST
from dwctl.billing.reservations import Reservations, Wanted
from dwctl.catalog.routing import SYSTEM, Routing
from dwctl.config import Credits
from dwctl.protocols import bounds

_SHARES = 100


class Held(msgspec.Struct):
    """What stands behind one call that is paid for, until it ends. `is_reserved`: in the database; `is_settled`: its record sees to that.
    let_go: called once, unless that is so; beside: what else stands behind it.
    """

    let_go: Callable[[], None] | None
    is_reserved: bool
    beside: Held | None = None
    is_settled: bool = False

    def end(self) -> None:
        """The call is over. A second time does nothing."""
        let_go, self.let_go = self.let_go, None
        if let_go is not None and not (self.is_reserved and self.is_settled):
            let_go()
        if self.beside is not None:
            self.beside.end()


class Funds:
    """What the calls of this process may cost."""

    def __init__(self, credits: Credits, reservations: Reservations) -> None:
        self._credits = credits
        self._reserve_below = money.units(credits.reserve_below)
        self._reservations = reservations
        self._unheld: dict[int, int] = {}
        """By account, its id as a number, which is found sooner."""

    def hold(self, admitted: Admitted, routing: Routing) -> Held | None:
        """See to it that the call can be paid; None where it costs nothing. Raises NoCredit, CapReached (402), DatabaseAway.

        A call of a worker does not wait for others' reservations: its queue does.
        """
        owner, price = admitted.key.owner_id, admitted.price
        if price is None or price.is_zero or owner == SYSTEM:
            return None
        capped = admitted.key.id if admitted.key.id in routing.capped else None
        least = levels.least_units(routing.funded.get(owner, 0))
        is_low = least < self._reserve_below or least == 0
        unheld = None if is_low else self._unheld_of(admitted, least)
        if capped is None and unheld is not None:
            return unheld
        estimate = self._estimate(admitted)
        if not estimate.most:
            return unheld
        id = admitted.request.id
        wanted = Wanted(
            id,
            owner,
            min(estimate.most, LARGEST),
            is_bounded=estimate.is_bounded,
            of_balance=unheld is None,
            api_key_id=capped,
        )
        patience_s = 0.0 if admitted.request.queued else self._credits.reservation_wait
        try:
            self._reservations.hold(wanted, patience_s=patience_s)
        except BaseException:
            if unheld is not None:
                unheld.end()
            raise
        return Held(partial(self._reservations.let_go, id), is_reserved=True, beside=unheld)

    def _unheld_of(self, admitted: Admitted, least: int) -> Held | None:
        """Nothing is held where what runs here unheld of that account stays a small share of the least that it has (`money.units`)."""
        owner = admitted.key.owner_id.int
        most = self._at_a_glance(admitted)
        after = self._unheld.get(owner, 0) + most
        if after * _SHARES > least:
            return None
        self._unheld[owner] = after
        return Held(partial(self._take_off, owner, most), is_reserved=False)

    def _take_off(self, owner: int, amount: int) -> None:
        left = self._unheld[owner] - amount
        if left:
            self._unheld[owner] = left
        else:
            del self._unheld[owner]

    def _at_a_glance(self, admitted: Admitted) -> int:
        """At most what the call costs, in `money.units`, without a look at its texts: a token has a byte or more."""
        asked, price = admitted.request.asked, admitted.price
        assert price is not None
        if asked.told is not None:
            return money.units(self._estimate(admitted).most)
        written = bounds.most_written(asked.content, asked.surface.limited_by)
        if written is None:
            written = self._credits.assumed_output_tokens * bounds.answers(asked.content)
        read = len(asked.body) + bounds.most_of_media(asked.body, asked.content)
        of_read, of_written = price.dearest_units
        return of_read * read + of_written * written

    def _estimate(self, admitted: Admitted) -> Estimate:
        assumed = self._credits.assumed_output_tokens
        length = admitted.context_length
        return estimates.estimate(
            admitted.request.asked,
            admitted.price,
            context_length=None if length is None else min(length, assumed),
            output_tokens=assumed,
        )
