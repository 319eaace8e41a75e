"""A simulated engine: slots, KV blocks, chunked prefill, preemption by rank, a host store. Discrete events, not steps. `run.py` creates it.

It does what the real engine's scheduler does, at the same moments: between two steps it looks for waiting requests that outrank running
ones by enough levels, preempts the worst, admits the best while slots and blocks last, and prefills in chunks. Steps in which requests
only decode are all the same, so any number of them up to the next event (an arrival, an end, a plan, a quantum, a full device) is one sum:
n steps with b requests and c tokens of context take n·(step + decode·b + context·c) + context·b·n(n-1)/2 seconds.

What it takes from vLLM 0.32 (v1/core/sched/scheduler.py, request_queue.py, v1/core/kv_cache_manager.py):
- The running ones get their blocks first. When one is missing, the worst (priority, arrival) is preempted until it is there. First come,
  first served takes the last of the running list, which is the same: it admits from the head of the queue only, in order of arrival.
- The preempted one goes back to the queue, in front of all that arrived later, with nothing computed. Its own blocks are free and stay
  cached until they are taken; a shared prefix that others hold stays.
- In a step that preempted for memory no waiting request is admitted. Preemption by rank happens before the step and does not count.
- A request is admitted when blocks for all tokens it has are free; it is preempted for room, a waiting one never preempts in stock vLLM.
- With async scheduling a step is scheduled while the one before it runs: it sees arrivals only from before that one began, and what that
  one ends still holds its slot and blocks, and computes one token more, which may need another block.

Left out: several samples per request, a plan's way, blocks of a long prompt by chunks (they are held from its first). Answers are taken to
end with a stop token, which vLLM learns of one step late with async scheduling. One that ends at `max_tokens` ends a step earlier.
"""

import heapq
import math
from bisect import insort
from collections import deque
from typing import Final

from alise_scheduler.core.plan import Limits
from alise_scheduler.core.reports import Phase

from . import preemption
from .device_memory import DeviceMemory
from .driver import PolicyDriver
from .host import HostStore
from .model import EngineModel
from .request import Request

_NEVER: Final = math.inf
# The number of waiting requests for which others may have to make room; as in the engine.
_CANDIDATES: Final = 8


class Replica(DeviceMemory):
    """Push arrivals in order, then `advance()`. What ends is in `ended`."""

    def __init__(self, model: EngineModel, driver: PolicyDriver) -> None:
        super().__init__(model)
        self.driver = driver
        self.host = HostStore(model)
        self.now = 0.0
        self.steps_run = 0
        self.preemptions = 0
        self.recomputed_tokens = 0
        self.cached_tokens = 0
        self.busy_seconds = 0.0
        self.ended: list[Request] = []
        self.inbox: deque[Request] = deque()
        self.waiting: list[tuple[float, int, Request]] = []
        self._ends: list[tuple[int, int, int, Request]] = []  # (step at which it ends, its index, which of its runs, itself)
        # The step at which the next running request may be preempted, if one outranked it.
        self._recheck_step = 0
        self._extra_seconds = 0.0
        # Running requests that make no step in this turn.
        self._late: list[Request] = []
        # Async scheduling: when the last step began; of what it ended, the slots and the work of one more token, both of the next step.
        self._last_began, self._ending_slots, self._ending_seconds = -_NEVER, 0, 0.0

    @property
    def live(self) -> int:
        """Requests that wait or run, or are about to."""
        return len(self.inbox) + len(self.waiting) + len(self.running)

    def next_event(self) -> float:
        """No request of this replica ends before this time."""
        if self.running or self.waiting:
            return self.now
        return self.inbox[0].arrived_at if self.inbox else _NEVER

    def advance(self, until: float = _NEVER) -> None:
        """Runs every step that starts before `until`; without it, everything there is."""
        while True:
            if not self.running:
                # Nothing is in flight, so what ended has been heard of.
                self._ending_slots, self._ending_blocks, self._ending_seconds = 0, 0, 0.0
            self._take_arrivals()
            if not self.running and not self.waiting:
                if not self.inbox or self.inbox[0].arrived_at >= until:
                    return
                self.now = max(self.now, self.inbox[0].arrived_at)
                continue
            if self.now >= until:
                return
            limits = self._plan()
            self._preempt_by_rank(limits)
            self._run(until, limits)

    def _take_arrivals(self) -> None:
        inbox = self.inbox
        # While a step runs, the next one is scheduled already.
        seen_until = self._last_began if self.model.async_scheduling and self.running else self.now
        while inbox and inbox[0].arrived_at <= seen_until:
            request = inbox.popleft()
            self.driver.arrived(request, self.now)
            if request.refused:
                self.ended.append(request)
            else:
                insort(self.waiting, (request.level, request.order, request))

    def _plan(self) -> Limits:
        driver = self.driver
        if self.waiting and self.now >= driver.due_at(self._free_slots() > 0):
            driver.plan(self.now, self.step)
            self.waiting = sorted([(request.level, request.order, request) for _, _, request in self.waiting])
        return driver.limits

    def _free_slots(self) -> int:
        return self.model.shape.max_num_seqs - len(self.running) - self._ending_slots

    # --- who runs ---------------------------------------------------------------------------------------------------------------------

    def _preempt_by_rank(self, limits: Limits) -> None:
        self._recheck_step = 0
        outranked = preemption.outranked(self.running, self.waiting, limits)
        if not outranked:
            return
        choice = preemption.choose(
            outranked,
            self.waiting[:_CANDIDATES],
            self._free_slots(),
            self.model.shape.num_device_blocks - self._used_blocks(1),
            step=self.step,
            limits=limits,
            needed_blocks=self._needed_blocks,
            own_blocks=lambda one: self._blocks(one.prompt_tokens + one.tokens(self.step)) - one.shared_blocks,
        )
        self._recheck_step = choice.recheck_step
        for victim in choice.victims:
            self._preempt(victim, limits)

    def _preempt(self, request: Request, limits: Limits) -> None:
        """Parks what it has computed and puts it back in the queue."""
        tokens = request.tokens(self.step)
        computed = request.prompt_tokens + tokens - (1 if request.decoding else request.todo)
        self._give_back(request, computed)
        if request.decoding:
            self._context -= request.prompt_tokens + tokens
            request.generated, request.decoding = tokens, False
        else:
            self._prefilling.remove(request)
        request.todo = 0
        request.run += 1
        request.preemptions += 1
        self.preemptions += 1
        request.phase, request.phase_at = Phase.PREEMPTED, self.now
        if computed > 0 and limits.host_budget_bytes > 0:
            self._extra_seconds += self.host.save(request, computed, limits, self._lost)
            if request.host_tokens:
                request.phase = Phase.OFFLOADED
        self.driver.moved(request, self.step)
        insort(self.waiting, (request.level, request.order, request))

    def _lost(self, request: Request) -> None:
        request.phase = Phase.PREEMPTED
        self.driver.moved(request, self.step)

    def _admit(self, budget: int) -> tuple[int, int]:
        """Admits the best while slots, blocks and the step's token budget last. Returns the tokens it prefills and the context of them."""
        shape, prefilled, context = self.model.shape, 0, 0
        while self.waiting and budget > 0 and self._free_slots() > 0:
            request = self.waiting[0][2]
            total = request.prompt_tokens + request.generated
            if not self._fits(request):
                break
            self.waiting.pop(0)
            held = self.cache.hit_tokens(request)
            self.cached_tokens += held
            self.cache.admitted(request, self._blocks(total) - held // shape.block_size)
            if request.host_tokens > held:
                cached, held = held, request.host_tokens
                self._extra_seconds += self.host.restore(request, cached)
            elif request.host_tokens:
                self.host.drop(request)
            # One token at least is computed: the one whose output comes next.
            request.todo = max(1, total - held)
            if request.preemptions:
                self.recomputed_tokens += request.todo - 1
            request.waited_seconds += self.now - request.phase_at
            request.phase, request.phase_at, request.start_step = Phase.RUNNING, self.now, self.step
            self.running.append(request)
            self._prefilling.append(request)
            self.driver.moved(request, self.step)
            chunk = min(request.todo, budget)
            request.todo -= chunk
            budget -= chunk
            prefilled += chunk
            context += total - request.todo
        return prefilled, context

    # --- memory -----------------------------------------------------------------------------------------------------------------------

    def _give_back(self, request: Request, computed_tokens: int) -> None:
        """It leaves the running ones and its blocks become free; what it computed stays in them until they are taken."""
        if self.model.prefix_caching and (request.shared_blocks or computed_tokens < request.prompt_tokens + request.output_tokens - 1):
            self.cache.left(request, computed_tokens, self.model.shape.num_device_blocks - self._used_blocks(1))
        self.running.remove(request)

    def _steps_that_fit(self, steps: int, limits: Limits) -> int:
        """At most this many decoding steps until a block is missing; preempts the worst until one fits."""
        most = self._most_steps(steps)
        if most or (len(self.running) == 1 and not self._ending_blocks):
            return max(1, most)
        self._make_room(limits)
        return 1

    def _make_room(self, limits: Limits) -> None:
        """As the engine: the running ones take the block they need in turn, and the worst go until each has it.

        Where the one whose turn it is is itself the worst, it goes, and the ones behind it make no step: the engine stops there.
        """
        index, free = 0, self.model.shape.num_device_blocks - self._used_blocks(0)
        taken: dict[int, int] = {}
        while index < len(self.running):
            request = self.running[index]
            tokens = request.prompt_tokens + request.tokens(self.step)
            needs = self._blocks(tokens) - self._blocks(tokens - 1) if request.decoding else 0
            while needs > free:
                victim = max(self.running, key=lambda one: (one.level, one.order))
                index -= self.running.index(victim) < index
                taken.pop(victim.index, None)
                self._preempt(victim, limits)
                if victim is request:
                    self._late = self.running[index:]
                    return
                free = self.model.shape.num_device_blocks - self._used_blocks(0) - sum(taken.values())
            taken[request.index] = needs
            free -= needs
            index += 1

    # --- steps ------------------------------------------------------------------------------------------------------------------------

    def _hold_back(self) -> bool:
        """Those behind a request that had to go make no step. Returns whether any other one is left to make it."""
        late = self._late
        if late and len(late) == len(self.running):
            return False
        for request in late:
            if request.decoding:
                request.generated -= 1
                self._will_end(request)
        return bool(self.running)

    def _will_end(self, request: Request) -> None:
        request.run += 1
        heapq.heappush(self._ends, (request.output_tokens - request.generated, request.index, request.run, request))

    def _run(self, until: float, limits: Limits) -> None:
        """One mixed step when something prefills or may be admitted; else as many decoding steps as nothing happens in."""
        shape, self._late = self.model.shape, []
        if self._prefilling or (self.waiting and self._free_slots() > 0):
            preempted = self.preemptions
            self._steps_that_fit(1, limits)
            if self.preemptions > preempted and not self._hold_back():
                return
            decoders = len(self.running) - len(self._prefilling) - sum(request.decoding for request in self._late)
            budget = max(1, shape.max_num_batched_tokens - decoders)
            prefilled = context = 0
            for request in self._prefilling:
                if budget <= 0 or request in self._late:
                    break
                chunk = min(request.todo, budget)
                request.todo -= chunk
                budget -= chunk
                prefilled += chunk
                context += request.prompt_tokens + request.generated - request.todo
            # A step that preempted for memory admits no request.
            more, more_context = self._admit(budget) if self.preemptions == preempted else (0, 0)
            prefilled += more
            if prefilled:
                self._mixed(prefilled, context + more_context, decoders)
                return
            if self.preemptions > preempted:
                self._step_decoding(decoders)
                return
        if self.running:
            self._decode(until, limits)
        elif self.waiting:
            held, index = f"{shape.num_device_blocks} blocks of {shape.block_size}", self.waiting[0][2].index
            raise ValueError(f"request {index} needs more KV than the device has, {held}; give the engine more blocks")

    def _mixed(self, prefilled: int, context: int, decoders: int) -> None:
        seconds = self.model.cost.step(prefilled, decoders, self._context + context) + self._extra_seconds
        self._pass(seconds, 1, decoders)
        done = [request for request in self._prefilling if request.todo == 0]
        if done:
            self._prefilling = [request for request in self._prefilling if request.todo]
            for request in done:
                self._first_token(request)
        self._finish()

    def _first_token(self, request: Request) -> None:
        """Takes in that the prefill has ended and given a token."""
        request.generated += 1
        if request.generated == 1:
            request.first_token_at = self.now
        if request.generated >= request.output_tokens:
            self._end(request)
            return
        self._context += request.prompt_tokens + request.generated
        request.generated -= self.step
        request.decoding = True
        self._will_end(request)
        self.driver.moved(request, self.step)

    def _decode(self, until: float, limits: Limits) -> None:
        ends = self._ends
        while ends[0][2] != ends[0][3].run:
            heapq.heappop(ends)
        steps = ends[0][0] - self.step
        if self._recheck_step:
            steps = min(steps, self._recheck_step - self.step)
        if self._ending_slots and self.waiting:
            # A slot and blocks are free after this step.
            steps = 1
        c, decoders = self.model.cost, len(self.running)
        first = c.step(0, decoders, self._context)
        growth = c.context_seconds * decoders
        border = min(until, self.inbox[0].arrived_at if self.inbox else _NEVER)
        if self.waiting:
            border = min(border, self.driver.due_at(False))
        if border < _NEVER and steps > 1:
            steps = min(steps, steps_until(border - self.now - self._extra_seconds - self._ending_seconds, first, growth))
        steps = self._steps_that_fit(max(1, steps), limits)
        if len(self.running) != decoders:
            # One had to leave: the others make one step, and nothing is admitted in it.
            if self._hold_back():
                self._step_decoding(len(self.running) - len(self._late))
            return
        self._pass(steps * first + growth * steps * (steps - 1) / 2 + self._extra_seconds, steps, decoders)
        self._finish()

    def _step_decoding(self, decoders: int) -> None:
        self._pass(self.model.cost.step(0, decoders, self._context) + self._extra_seconds, 1, decoders)
        self._finish()

    def _pass(self, seconds: float, steps: int, decoders: int) -> None:
        seconds += self._ending_seconds
        self._ending_slots, self._ending_blocks, self._ending_seconds = 0, 0, 0.0
        self._last_began = self.now if steps == 1 else self.now + seconds * (steps - 1) / steps
        self.cache.taken += steps * decoders / self.model.shape.block_size
        self.now += seconds
        self.busy_seconds += seconds
        self.step += steps
        self.steps_run += steps
        self._context += steps * decoders
        self._extra_seconds = 0.0

    def _finish(self) -> None:
        ends = self._ends
        while ends and ends[0][0] <= self.step:
            _, _, run, request = heapq.heappop(ends)
            if run == request.run:
                self._context -= request.prompt_tokens + request.output_tokens
                request.generated, request.decoding = request.output_tokens, False
                self._end(request)

    def _end(self, request: Request) -> None:
        request.ended_at = self.now
        request.run += 1
        tokens, c = request.prompt_tokens + request.output_tokens, self.model.cost
        held = self._blocks(tokens) - request.shared_blocks
        self._give_back(request, tokens - 1)
        if self.model.async_scheduling:
            self._ending_slots += 1
            self._ending_blocks += held
            self._ending_seconds += c.decode_seconds + c.context_seconds * tokens
        self.driver.left(request)
        self.ended.append(request)


def steps_until(seconds: float, first: float, growth: float) -> int:
    """Fewest steps, at least 1, whose sum n·first + growth·n(n-1)/2 reaches `seconds`."""
    if seconds <= first:
        return 1
    half = first - growth / 2
    # The quadratic's root without its cancellation.
    return max(1, math.ceil(2 * seconds / (math.sqrt(half * half + 2 * growth * seconds) + half) - 1e-9))
