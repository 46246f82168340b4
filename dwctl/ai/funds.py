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
from decimal import Decimal
from uuid import UUID

from dwctl.ai.admission import Admitted
from dwctl.billing import estimates, levels, tariffs
from dwctl.billing.estimates import Estimate
from dwctl.billing.money import EXACT, LARGEST
from dwctl.billing.reservations import Reservations, Wanted
from dwctl.catalog.routing import SYSTEM, Routing
from dwctl.config import Credits
from dwctl.protocols import bounds

_SHARE = Decimal("0.01")


class Held:
    """What stands behind one call that is paid for, until it ends. `is_reserved`: in the database; `is_settled`: its record sees to that.
    beside: what else does.
    """

    __slots__ = ("_beside", "_end", "is_reserved", "is_settled")

    def __init__(
        self, end: Callable[[], None], *, is_reserved: bool, beside: Held | None = None
    ) -> None:
        self._end: Callable[[], None] | None = end
        self._beside = beside
        self.is_reserved = is_reserved
        self.is_settled = False

    def end(self) -> None:
        """The call is over. A second time does nothing."""
        end, self._end = self._end, None
        if end is not None and not (self.is_reserved and self.is_settled):
            end()
        if self._beside is not None:
            self._beside.end()


class Funds:
    """What the calls of this process may cost."""

    def __init__(self, credits: Credits, reservations: Reservations) -> None:
        self._credits = credits
        self._reservations = reservations
        self._unheld: dict[UUID, Decimal] = {}

    def hold(self, admitted: Admitted, routing: Routing) -> Held | None:
        """See to it that the call can be paid; None where it costs nothing. Raises NoCredit, CapReached (402), DatabaseAway.

        A call of a worker does not wait for others' reservations: its queue does.
        """
        owner, price = admitted.key.owner_id, admitted.price
        if price is None or price.is_zero or owner == SYSTEM:
            return None
        capped = admitted.key.id if admitted.key.id in routing.capped else None
        least = levels.least(routing.funded.get(owner, 0))
        is_low = least < self._credits.reserve_below or least == 0
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
        return Held(lambda: self._reservations.let_go(id), is_reserved=True, beside=unheld)

    def _unheld_of(self, admitted: Admitted, least: Decimal) -> Held | None:
        """Nothing is held where what runs here unheld of that account stays a small share of the least that it has."""
        owner = admitted.key.owner_id
        before = self._unheld.get(owner, Decimal(0))
        most = self._at_a_glance(admitted)
        after = EXACT.add(before, most)
        if after > EXACT.multiply(least, _SHARE):
            return None
        self._unheld[owner] = after
        return Held(lambda: self._take_off(owner, most), is_reserved=False)

    def _take_off(self, owner: UUID, amount: Decimal) -> None:
        left = EXACT.subtract(self._unheld[owner], amount)
        if left:
            self._unheld[owner] = left
        else:
            del self._unheld[owner]

    def _at_a_glance(self, admitted: Admitted) -> Decimal:
        """At most what the call costs, without a look at its texts: a token has a byte or more."""
        asked, price = admitted.request.asked, admitted.price
        assert price is not None
        if asked.told is not None:
            return self._estimate(admitted).most
        written = bounds.most_written(asked.content, asked.surface.limited_by)
        if written is None:
            written = self._credits.assumed_output_tokens * bounds.answers(asked.content)
        read = len(asked.body) + bounds.most_of_media(asked.content)
        return tariffs.price(price.dearest, read, written)

    def _estimate(self, admitted: Admitted) -> Estimate:
        assumed = self._credits.assumed_output_tokens
        length = admitted.context_length
        return estimates.estimate(
            admitted.request.asked,
            admitted.price,
            context_length=None if length is None else min(length, assumed),
            output_tokens=assumed,
        )
