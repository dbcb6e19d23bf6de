"""What all present interactions add to one system: energy, forces, and the account of the work that each has done.

For an interaction whose energy E does not depend on time, the integral of F dx between two moments under the same
parameters is exactly E(before) - E(now), however the particles went; that is how work is integrated, so that it has no error
of its own. Where E depends on time too (a moving restraint), the integral of dE/dt at fixed positions is added, by the
trapezoidal rule over the calls of `step`. A changed interaction closes the account at the present positions under the old
parameters and opens it there under the new ones: moving a handle is no work on the particles.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import structlog
from numpy.typing import ArrayLike, NDArray

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.periodic import Lattice
from narupa_shared.potentials.accounts import Account, FinishedInteraction, KeptAccount, same, sound_total
from narupa_shared.potentials.groups import Groups
from narupa_shared.potentials.potential import Evaluate, Evaluation, Geometry, Potential, Terms
from narupa_shared.potentials.registry import BUILT_IN, potential_named
from narupa_shared.potentials.vectors import Array

if TYPE_CHECKING:
    from narupa_shared.interactions import Interaction

log = structlog.get_logger(__name__)

# Reports of interactions that have ended and that nobody has taken yet.
MAX_FINISHED: Final = 10_000


class Batch:
    """The interactions of one kind: which they are among all, and which groups and members are theirs."""

    __slots__ = ("built_in", "evaluate", "groups", "members", "order", "potential", "prepared")

    def __init__(self, potential: Potential, order: list[int], groups: slice, members: slice) -> None:
        self.potential = potential
        self.built_in = potential.name in BUILT_IN
        self.order = order
        self.groups = groups
        self.members = members
        self.evaluate: Evaluate | None = None
        self.prepared: list[Interaction] = []  # as `evaluate` knows them


def nothing(batch: Batch) -> Evaluate:
    """What a batch does that does nothing."""
    potential = batch.potential

    def evaluate(at: Geometry) -> Evaluation:
        like = at.members if potential.per_particle else at.centres
        return Evaluation(np.zeros(len(batch.order)), np.zeros_like(like))

    return evaluate


def check_shapes(found: Evaluation, batch: Batch, centres: tuple[int, ...]) -> None:
    """Raises ValueError where a plug-in's arrays have the wrong shape."""
    count = len(batch.order)
    expected = (3, batch.members.stop - batch.members.start) if batch.potential.per_particle else centres
    rates = (count,) if found.rates is None else np.shape(found.rates)
    if np.shape(found.energies) != (count,) or np.shape(found.forces) != expected or rates != (count,):
        raise ValueError(
            f"gave energies of shape {np.shape(found.energies)}, forces of {np.shape(found.forces)} and rates of {rates}; "
            f"expected {(count,)}, {expected} and {(count,)}"
        )


class Forces:
    """The result of one evaluation of all interactions."""

    __slots__ = ("energies", "members", "net", "rates", "total")

    def __init__(self, energies: Array, total: float, members: Array, net: Array, rates: Array | None) -> None:
        self.energies = energies  # (K,) kJ/mol
        self.total = total  # kJ/mol
        self.members = members  # (3, M) kJ/(mol nm)
        self.net = net  # (3, K) on the first group of each
        self.rates = rates  # (K,) kJ/(mol ps)


class Bias:
    """All present interactions on one system, evaluated together, with the account of each.

    Positions are given for `particles` only, the sorted union of the interactions' particles, so that the cost follows what
    is being pulled and not the size of the system. An engine calls `step` at each step of its integration if the bias is
    `timed`; else as rarely as it likes, and the work is exact all the same.

    Attributes:
        particles: (n,) sorted indices of the particles that some interaction acts on.
        interactions: Those in force.
        timed: Whether some energy depends on time, so that work is only right when `step` is called at each step.
        energies: (K,) kJ/mol, as of the last `step`.
        net_forces: (K, 3) kJ/(mol nm), sum over the particles (of the first group), as of the last `step`.
    """

    def __init__(self, masses: ArrayLike, clock: Callable[[], float] = time.time) -> None:
        """A bias with no interactions on particles of these masses, (N,) amu; `clock` gives seconds since 1970."""
        self._masses = np.array(masses, dtype=np.float64)
        self._clock = clock
        self._accounts: list[Account] = []
        self._kept: dict[str, KeptAccount] = {}
        self._finished: list[FinishedInteraction] = []
        self._past_work = 0.0  # of those that have ended
        self._lattice: Lattice | None = None
        self._box_key: bytes | None = None
        self._begun = True  # whether all accounts know when and where they began
        self._fresh: list[Account] = []  # those that do not
        # As of the last finite step; opened is None until the first step after the accounts were closed.
        self._opened: Array | None = None
        self._latest = np.zeros(0)
        self._rates: Array | None = None
        self._time_ps = 0.0
        # As of the last step, finite or not.
        self._energies = np.zeros(0)
        self._net = np.zeros((3, 0))
        self._last_finite: Array | None = None  # forces on members
        self._work = np.zeros(0)
        self._failures: dict[str, str] = {}
        self._lay_out()

    # What acts

    @property
    def interactions(self) -> tuple[Interaction, ...]:
        return tuple(account.interaction for account in self._accounts)

    @property
    def empty(self) -> bool:
        return not self._accounts

    @property
    def work(self) -> float:
        """Integral of F dx since the last reset, kJ/mol: what users have put into the system, finished interactions included."""
        return self._past_work + float(self.works.sum()) + sum(kept.work for kept in self._kept.values())

    @property
    def works(self) -> Array:
        """(K,) kJ/mol, the work of each interaction in force."""
        works = self._work.copy()
        if self._opened is not None:
            works += self._opened - self._latest
        return works

    @property
    def energies(self) -> Array:
        return self._energies

    @property
    def net_forces(self) -> Array:
        return self._net.T

    def set(self, interactions: Sequence[Interaction], positions: Array, box: ArrayLike | None, time_ps: float) -> None:
        """These interactions and no others act from this moment on. The change itself does no work.

        Those that name particles beyond the system are left out; of several with one id the last counts. An interaction with
        the id, potential, particles and weights of one in force is the same: its account and its origin go on.

        Args:
            positions: (N, 3) float64 nm, where all particles of the system are now.
            box: (3, 3) nm, rows are the box vectors, a row of zeros where there is no period; None without any.
            time_ps: The simulated time now.

        Raises:
            InvalidArgumentError: the box has dependent or infinite vectors, or a potential is not installed here.
        """
        count = len(self._masses)
        wanted = {
            item.id: item
            for item in interactions
            if item.particles and 0 <= item.particles[0] <= item.particles[-1] < count
        }
        for item in wanted.values():
            potential_named(item.kind)
        if self._accounts:
            self.step(positions[self.particles], box, time_ps)
        self._close()
        now = self._clock()
        before = {account.interaction.id: account for account in self._accounts}
        accounts = []
        for item in wanted.values():
            account = before.get(item.id)
            if account is not None and same(account.interaction, item):
                del before[item.id]
                account.interaction = item
            else:
                account = self._new_account(item, now)
            accounts.append(account)
        for account in before.values():
            self._past_work += account.work
            self._finished.append(account.finished(now, time_ps))
        del self._finished[:-MAX_FINISHED]
        self._arrange(accounts)
        if accounts:
            self.step(positions[self.particles], box, time_ps)

    def _new_account(self, item: Interaction, now: float) -> Account:
        kept = self._kept.pop(item.id, None)
        if kept is None:
            return Account(item, now)
        if not kept.of(item):
            self._past_work += kept.work
            return Account(item, now)
        lost = kept.begun_at is None and potential_named(item.kind).anchored
        return Account(item, kept.started_at, None if lost else kept.start_time_ps, kept.begun_at, kept.work)

    # Energies and forces

    def evaluate(self, positions: Array, box: ArrayLike | None, time_ps: float) -> tuple[float, Array]:
        """Energy (kJ/mol) and forces ((n, 3) float64, kJ/(mol nm)) with `particles` at `positions`; no accounting.

        Args:
            positions: (n, 3) float64 nm, in the order of `particles`.
            box: As for `set`.
            time_ps: Simulated time.

        Raises:
            InvalidArgumentError: the box has dependent or infinite vectors.
        """
        self._set_box(box)
        pending = not self._begun
        result = self._evaluate(positions, time_ps)
        if pending:
            for account in self._fresh:
                account.start_time_ps = account.begun_at = None
            self._begun = False
        return result.total, self._groups.scatter(result.members)

    def step(self, positions: Array, box: ArrayLike | None, time_ps: float) -> tuple[float, Array]:
        """As `evaluate`, and the accounts are brought up to here.

        Calling it again in the same place adds nothing, so an engine may evaluate as often as it likes.
        """
        self._set_box(box)
        result = self._evaluate(positions, time_ps)
        self._energies, self._net = result.energies, result.net
        if math.isfinite(result.total):
            if self._opened is None:
                self._opened = result.energies
            elif result.rates is not None and self._rates is not None:
                self._work += (self._rates + result.rates) * ((time_ps - self._time_ps) / 2)
            self._latest, self._rates, self._time_ps = result.energies, result.rates, time_ps
        return result.total, self._groups.scatter(result.members)

    def rebase(self) -> None:
        """The next `step` starts from where the particles are then; what moved them there was no dynamics."""
        self._close()

    def reset(self) -> None:
        """No work has been done and nothing has finished; the interactions in force begin anew at the next step or set."""
        now = self._clock()
        self._past_work = 0.0
        self._finished.clear()
        self._kept.clear()
        self._arrange([Account(account.interaction, now) for account in self._accounts])

    # Accounts

    def take_finished(self) -> list[FinishedInteraction]:
        """The accounts of interactions that have ended since this was last asked, each told once."""
        taken, self._finished = self._finished, []
        return taken

    def failures(self) -> Mapping[str, str]:
        """Potentials from plug-ins that have failed while they acted, and why; their interactions have no effect."""
        return dict(self._failures)

    def suspects(self) -> tuple[str, ...]:
        """Ids by the largest |F_i| / m_i that each has caused at the last finite evaluation, largest first; none without force.

        Where a system blows up, the first is the one most likely to have done it.
        """
        forces = self._last_finite
        if forces is None or not self._accounts:
            return ()
        accelerations = self._groups.largest(np.sqrt((forces * forces).sum(axis=0)) / self._inertia)
        worst = np.zeros(len(self._accounts))
        np.maximum.at(worst, self._group_owners, accelerations)
        order = np.argsort(-worst, kind="stable")
        return tuple(self._accounts[place].interaction.id for place in order.tolist() if worst[place] > 0)

    def state(self) -> dict[str, Any]:
        """The accounts, in JSON's types; `restore` reads them back."""
        works = self.works.tolist()
        accounts = zip(self._accounts, works, strict=True)
        return {
            "work": self.work,
            "accounts": {
                **{id: kept.state() for id, kept in self._kept.items()},
                **{account.interaction.id: account.state(work) for account, work in accounts},
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """The accounts are as `state` says.

        Interactions in force, and those set later, that were in force then go on with their account and their origin;
        others begin anew. An empty state is one of no work.

        Raises:
            InvalidArgumentError: naming what is wrong with it; nothing has changed.
        """
        if not isinstance(state, Mapping):
            raise InvalidArgumentError("bias", state, "must be a map")
        accounts = state.get("accounts", {})
        if not isinstance(accounts, Mapping):
            raise InvalidArgumentError("bias.accounts", accounts, "must be a map")
        kept = {str(id): KeptAccount.of_state(f"bias.accounts.{id}", value) for id, value in accounts.items()}
        total = sound_total(state.get("work", 0.0))
        self._kept = kept
        self._past_work = total - sum(account.work for account in kept.values())
        self._finished = [item for item in self._finished if item.id not in kept]
        now = self._clock()
        self._arrange([self._new_account(account.interaction, now) for account in self._accounts])

    # Inner workings

    def _close(self) -> None:
        """The accounts hold the work done so far, and are opened again by the next step."""
        works = self.works
        for account, work in zip(self._accounts, works.tolist(), strict=True):
            account.work = work
        self._work = works
        self._opened = self._rates = None

    def _arrange(self, accounts: Iterable[Account]) -> None:
        """These accounts, closed, are those in force."""
        before = self._accounts
        self._accounts = list(accounts)
        count = len(self._accounts)
        self._work = np.array([account.work for account in self._accounts], dtype=np.float64)
        self._opened = self._rates = self._last_finite = None
        self._latest = self._energies = np.zeros(count)
        self._net = np.zeros((3, count))
        if count != len(before) or not all(map(operator.is_, before, self._accounts)):
            self._lay_out()
        self._fresh = [account for account in self._accounts if account.start_time_ps is None]
        self._begun = not self._fresh
        if self._begun:
            self._prepare()

    def _lay_out(self) -> None:
        """Groups and batches for the accounts in force."""
        kinds: dict[str, list[int]] = {}
        for place, account in enumerate(self._accounts):
            kinds.setdefault(account.interaction.kind, []).append(place)
        listed: list[tuple[int, ...]] = []
        weighted: list[bool] = []
        owners: list[int] = []
        firsts = [0] * len(self._accounts)
        self._batches: list[Batch] = []
        members = 0
        for kind, order in kinds.items():
            begin, begin_member = len(listed), members
            for place in order:
                item = self._accounts[place].interaction
                groups = item.groups or (item.particles,)
                firsts[place] = len(listed)
                listed.extend(groups)
                weighted.extend([item.mass_weighted] * len(groups))
                owners.extend([place] * len(groups))
                members += len(item.particles)
            self._batches.append(
                Batch(potential_named(kind), order, slice(begin, len(listed)), slice(begin_member, members))
            )
        self._groups = Groups(listed, self._masses, weighted)
        self._group_owners: NDArray[np.intp] = np.array(owners, dtype=np.intp)
        self._first_groups: NDArray[np.intp] = np.array(firsts, dtype=np.intp)
        self.particles: NDArray[np.intp] = self._groups.union
        masses = self._masses[self.particles][self._groups.places] if listed else np.empty(0)
        self._inertia = np.where(masses > 0, masses, 1.0)
        self.timed = any(batch.potential.timed for batch in self._batches)
        self._straight = len(self._batches) == 1  # then the batch's order is everybody's

    def _prepare(self) -> None:
        """Each batch knows the present parameters."""
        groups = self._groups
        for batch in self._batches:
            accounts = [self._accounts[place] for place in batch.order]
            items = [account.interaction for account in accounts]
            if items == batch.prepared:
                continue
            batch.prepared = items
            per = batch.potential.groups
            totals = groups.totals[batch.groups].reshape(-1, per)
            begun_at: Array = np.empty((3, 0))
            if batch.potential.anchored:
                begun_at = np.concatenate(
                    [account.begun_at for account in accounts if account.begun_at is not None], axis=1
                )
            terms = Terms(
                interactions=items,
                handles=np.array([item.position for item in items], dtype=np.float64).T.copy(),
                scales=np.where(totals.min(axis=1) > 0, np.array([item.scale for item in items]), 0.0),
                max_forces=np.array([item.max_force for item in items], dtype=np.float64),
                counts=groups.counts[batch.groups].reshape(-1, per),
                starts=groups.starts[batch.groups] - batch.members.start,
                weights=groups.weights[batch.members],
                shares=groups.shares[batch.members],
                totals=totals,
                top_shares=groups.top_shares[batch.groups].reshape(-1, per),
                begun_ps=np.array([account.start_time_ps for account in accounts], dtype=np.float64),
                begun_at=begun_at,
            )
            try:
                batch.evaluate = batch.potential.prepare(terms)
            except Exception as error:
                if batch.built_in:
                    raise
                self._fail(batch, error)

    def _fail(self, batch: Batch, error: Exception) -> Evaluate:
        """A plug-in has failed: what it does counts up to here, and from here on it does nothing."""
        kind = batch.potential.name
        reason = f"{type(error).__name__}: {error}"
        if self._failures.get(kind) != reason:
            log.error("potential_failed", kind=kind, reason=reason, exc_info=error)
        self._failures[kind] = reason
        if self._opened is not None:
            for place in batch.order:
                self._work[place] += self._opened[place] - self._latest[place]
                self._opened[place] = 0.0
            self._latest[batch.order] = 0.0
        batch.evaluate = nothing(batch)
        return batch.evaluate

    def _begin(self, members: Array, time_ps: float) -> None:
        """Accounts that do not know it yet begin here and now."""
        for batch in self._batches:
            start = batch.members.start
            for place in batch.order:
                account = self._accounts[place]
                end = start + len(account.interaction.particles)
                if account.start_time_ps is None:
                    account.start_time_ps = time_ps
                    if batch.potential.anchored:
                        account.begun_at = members[:, start:end].copy()
                start = end
            batch.prepared = []
        self._begun = True
        self._prepare()

    def _set_box(self, box: ArrayLike | None) -> None:
        key = None if box is None else np.asarray(box, np.float64).tobytes()
        if key != self._box_key:
            self._lattice = Lattice.of_box(box)
            self._box_key = key

    def _evaluate(self, positions: Array, time_ps: float) -> Forces:
        count = len(self._accounts)
        if not count:
            return Forces(np.empty(0), 0.0, np.empty((3, 0)), np.empty((3, 0)), None)
        groups = self._groups
        members, centres = groups.whole(groups.gather(positions), self._lattice)
        if not self._begun:
            self._begin(members, time_ps)
        energies = np.empty(count)
        rates = np.zeros(count) if self.timed else None
        on_centres = np.zeros_like(centres)
        direct: list[tuple[slice, Array]] = []
        for batch in self._batches:
            assert batch.evaluate is not None
            potential = batch.potential
            near = centres[:, batch.groups].reshape(3, -1, potential.groups)
            try:
                found = batch.evaluate(Geometry(near, members[:, batch.members], self._lattice, time_ps))
                if not batch.built_in:
                    check_shapes(found, batch, near.shape)
            except Exception as error:
                if batch.built_in:
                    raise
                found = self._fail(batch, error)(Geometry(near, members[:, batch.members], None, time_ps))
            energies[batch.order] = found.energies
            if rates is not None and found.rates is not None:
                rates[batch.order] = found.rates
            if potential.per_particle:
                direct.append((batch.members, found.forces))
            else:
                on_centres[:, batch.groups] = found.forces.reshape(3, -1)
        forces = groups.spread(on_centres)
        net = on_centres[:, self._first_groups]
        for where, given in direct:
            forces[:, where] = given
        if direct:
            net = np.add.reduceat(forces, groups.starts, axis=1)[:, self._first_groups]
        total = float(energies.sum())
        if math.isfinite(total):
            self._last_finite = forces
        return Forces(energies, total, forces, net, rates)
