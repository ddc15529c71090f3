"""Sends the batches of one destination, from one thread: which goes out when, and what each answer leads to."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from transforms.credentials import MASK, redact
from transforms.dead_letter import REJECTED, UNDELIVERED, Failed
from transforms.deliver.gate import BROWNOUT, Gate, Halt
from transforms.deliver.journal import Journal
from transforms.deliver.parking import Parking
from transforms.deliver.policy import Policy, pause_after
from transforms.deliver.requests import Requests
from transforms.deliver.send import Send, some
from transforms.pack import SourcedItem, TooLarge
from transforms.tally import Tally
from transforms.vendors.base import (
    Answer,
    Batch,
    Delivered,
    Partial,
    Reject,
    Retry,
    Settings,
    Split,
    Stop,
    Vendor,
    Verdict,
    excerpt,
)

ROUNDS = 2
"""Times that a batch may use up its budget again with nothing else to be sent, when the vendor took others in between;
then it is the batch that is at fault."""

TELLING_TRIES = 8
"""Tries of a batch that tell how the vendor is: those after them tell more of the batch, which would judge itself."""

GRACE = 3.0
"""Seconds that requests on their way have to be answered when the sending is to stop and items can wait on disk."""


class Sender:
    """Sends batches, one request in flight a shard, and accounts for each item.

    `tally` and `failed` hold what became of the items since they were last taken.

    models: in the order of the items' model index. journal: where outcomes are written down before the next request
    leaves; with it, what a halt leaves unsent has no outcome and waits on disk. parking: makes items wait for a vendor
    that is down, instead of giving them up.
    """

    def __init__(
        self,
        vendor: Vendor,
        settings: Settings,
        models: Sequence[str],
        policy: Policy,
        gate: Gate,
        journal: Journal | None = None,
        parking: Parking | None = None,
    ) -> None:
        self.tally = Tally()
        self.failed: list[Failed] = []
        self.models = models
        self._journal = journal
        self._parking = parking
        self._cut_at: float | None = None
        self._vendor = vendor
        self._settings = settings
        self._policy = policy
        self._gate = gate
        keys = settings.credentials
        self._secrets = [keys[key.name] for key in vendor.credentials if key.secret and key.name in keys]
        self._queues: dict[int, deque[Iterator[Batch | TooLarge] | Send]] = {}
        self._flying: dict[int, Send] = {}
        """Shard -> its request that is on its way."""
        self._ready: deque[int] = deque()
        self._later: list[tuple[float, int]] = []
        self._requests = Requests(
            vendor,
            settings,
            connections=policy.connections,
            connect_timeout=policy.connect_timeout,
            timeout=policy.timeout,
            zipped=policy.gzip,
        )

    # What comes in ------------------------------------------------------------------------------

    def put(self, shard: int, batches: Iterable[Batch | TooLarge]) -> None:
        """Queues batches behind those the shard already has; they are packed when their turn comes."""
        queue = self._queues.get(shard)
        if queue is None:
            queue = self._queues[shard] = deque()
            self._gate.enter(1)
            # To a vendor that is parked, the next question is asked with what was never refused.
            (self._ready.appendleft if self.parked else self._ready.append)(shard)
        queue.append(iter(batches))

    @property
    def parked(self) -> bool:
        """Whether what is queued waits for a vendor that is down."""
        return self._parking is not None and self._parking.halt is not None and self._gate.halt is None

    @property
    def shards(self) -> int:
        """Shards that have something to be sent."""
        return len(self._queues)

    def drain(self, meanwhile: Callable[[], None] | None = None) -> None:
        """Sends until every queued item has its outcome. `meanwhile` is called again and again, and may put more."""
        while self._queues:
            self.pump(wait=True)
            if meanwhile is not None:
                meanwhile()
        if self._journal is not None:
            self._journal.flush()

    def close(self) -> None:
        """Ends all connections."""
        self._requests.close()
        self._gate.leave(len(self._queues))
        self._queues.clear()

    # The loop -----------------------------------------------------------------------------------

    def pump(self, wait: bool = False) -> None:
        """Starts what may start and takes what has come back; with `wait`, not before something happened."""
        now = time.monotonic()
        if self._gate.halt is not None:
            self._halted(self._gate.halt, now)
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[1])
        pause = 1.0
        while self._ready and self._requests.free:
            if self._parking is not None:
                pause = self._parking.wait(now, len(self._flying))
                if pause:
                    break
            pause = self._gate.claim(now)
            if pause:
                break
            self._start(self._ready.popleft(), now)
        if self._reap() or not wait:
            return
        if self._later:
            pause = min(pause, self._later[0][0] - time.monotonic())
        if self._cut_at is not None:
            pause = min(pause, self._cut_at - time.monotonic())
        pause = min(max(pause, 0.0), 1.0)
        if self._flying:
            self._requests.wait(pause)
        elif self._queues and not (self._ready and pause == 0.0):
            time.sleep(pause)

    def _next(self, shard: int) -> Send | None:
        """The shard's next batch; None when it has no more."""
        queue = self._queues[shard]
        while queue:
            head = queue[0]
            if isinstance(head, Send):
                queue.popleft()
                return head
            for batch in head:
                if isinstance(batch, Batch):
                    return Send(batch)
                self._fail(
                    REJECTED,
                    ((batch.item, batch.origin),),
                    f"too large: {batch.size} bytes alone in a request, {batch.limit} are allowed",
                )
            queue.popleft()
        del self._queues[shard]
        self._gate.leave(1)
        return None

    def _start(self, shard: int, now: float) -> None:
        send = self._next(shard)
        if send is None:
            return
        size = self._requests.start(shard, send.batch)
        self._flying[shard] = send
        send.started = now
        send.attempts += 1
        self.tally.requests += 1
        self.tally.retries += send.attempts > 1
        self.tally.bytes += size

    def _reap(self) -> int:
        """Takes finished requests; how many there were."""
        finished = 0
        for shard, answer, error, seconds in self._requests.returned():
            if error is None:
                self.tally.add_latency(seconds)
            self._finish(shard, self._flying.pop(shard), answer, error)
            finished += 1
        if finished and self._journal is not None:
            self._journal.flush()
        return finished

    # What came back -----------------------------------------------------------------------------

    def _finish(self, shard: int, send: Send, answer: Answer, network_error: str | None) -> None:
        batch = send.batch
        verdict: Verdict = Retry(network_error) if network_error else self._vendor.read(answer, batch)
        if not isinstance(verdict, Delivered) and answer.body:
            shown = self._without_secrets(answer)
            if shown is not answer:
                answer, verdict = shown, self._vendor.read(shown, batch)
        now = time.monotonic()
        ready = True
        takes = _takes(verdict, batch)
        if takes or send.attempts <= TELLING_TRIES:
            self._gate.answered(takes, now)
        if self._parking is not None and self._parking.halt is not None and takes:
            self._release_parked()
        match verdict:
            case Delivered():
                self._delivered(batch.items)
                self._gate.succeeded(send.started, len(batch.items))
            case Partial(rejected, again):
                ready = self._part(send, shard, rejected, again, answer, now)
            case Retry(reason):
                ready = self._retry(send, shard, reason, answer, now)
            case Split(reason):
                self._split(send, shard, reason, answer)
            case Reject(reason):
                self._fail(REJECTED, batch.items, reason, answer)
            case Stop(key, reason):
                if self._parking is not None:
                    self._park(Halt(reason, key), send, shard, answer, now)
                    ready = False
                elif self._journal is not None:
                    self._gate.stop(Halt(reason, key))
                    self._queues[shard].appendleft(send)
                else:
                    self._gate.stop(Halt(reason, key))
                    self._fail(UNDELIVERED, batch.items, reason, answer)
        if ready:
            self._ready.append(shard)

    def _without_secrets(self, answer: Answer) -> Answer:
        """An answer fit to be shown and kept: some vendors repeat what they were sent."""
        text = answer.body.decode("utf-8", "replace")
        shown = redact(text, self._secrets)
        if self._vendor.token is not None:
            shown = self._vendor.token.sub(MASK, shown)
        return answer if shown == text else answer._replace(body=shown.encode())

    def _part(self, send: Send, shard: int, rejected: object, again: Iterable[int], answer: Answer, now: float) -> bool:
        """Accounts for an answer that speaks of single items. Returns whether the shard may go on at once."""
        assert isinstance(rejected, dict)
        batch = send.batch
        for index, reason in rejected.items():
            self._fail(REJECTED, (batch.items[index],), reason, answer)
        left = [index for index in again if index not in rejected]
        waiting = set(left)
        taken = [pair for index, pair in enumerate(batch.items) if index not in rejected and index not in waiting]
        self._delivered(taken)
        if taken or not left:
            self._gate.succeeded(send.started, len(taken))
        if not left:
            return True
        send.batch = some(batch, left)
        return self._retry(send, shard, "no answer for some items", answer, now)

    def _retry(self, send: Send, shard: int, reason: str, answer: Answer, now: float) -> bool:
        """Puts a batch back for later, or gives it up. Returns whether the shard may go on at once."""
        send.failing_since = send.failing_since or send.started
        send.failed_at = send.failed_at or now
        if answer.retry_after:
            self._gate.pause(now + answer.retry_after)
        if self._parking is not None and self._parking.halt is not None:
            self._park(self._parking.still(reason), send, shard, answer, now)
            return False
        # Nothing at all was taken that left after this batch had failed: the vendor is down, not the batch at fault.
        down = self._gate.last_success < send.failed_at
        left = send.failing_since + self._policy.retry - now
        if self._parking is not None and not down and not answer.retry_after:
            left = self._gate.left(send.failing_since, self._policy.retry, now)
        pause = pause_after(send.attempts, self._policy.first_pause)
        # The last try is made when the budget ends, unless the vendor asked for more time than is left.
        pause = max(pause, answer.retry_after) if answer.retry_after else min(pause, left)
        if left <= 0 or pause > left:
            # No figures of this batch's own: the report counts equal reasons.
            asked = ", and the vendor asks for a longer pause" if answer.retry_after > max(left, 0.0) else ""
            reason = f"{reason}; not taken within the {self._policy.retry:g} s of `retry: for`{asked}"
            # So is one that asks for patience, whatever it takes of others meanwhile.
            if self._parking is not None and (down or answer.retry_after):
                if not self._at_fault(send, answer):
                    self._park(Halt(reason), send, shard, answer, now)
                    return False
                down = False
            if down:
                self._gate.stop(Halt(reason))
            if down and self._journal is not None:
                self._queues[shard].appendleft(send)
            else:
                self._fail(UNDELIVERED, send.batch.items, reason, answer)
            return True
        self._queues[shard].appendleft(send)
        heapq.heappush(self._later, (now + pause, shard))
        return False

    def _at_fault(self, send: Send, answer: Answer) -> bool:
        """Whether it is a batch that is not taken, rather than a vendor that is down, when its time is over."""
        if answer.retry_after:  # it is asked to wait, and so are others
            return False
        before, send.success_before = send.success_before, self._gate.last_success
        send.rounds += before is not None and send.success_before > before
        return send.rounds >= (BROWNOUT if self._gate.ailing else ROUNDS)

    def _park(self, halt: Halt, send: Send, shard: int, answer: Answer, now: float) -> None:
        """Keeps a batch for a vendor that is down: it is the first of its shard to go out again. Another shard's is the next
        probe: were it always the same, an item that the vendor chokes on would pass for a vendor that is down."""
        assert self._parking is not None
        self._parking.park(halt, now, answer.retry_after)
        send.failing_since = send.failed_at = 0.0
        self._queues[shard].appendleft(send)
        self._ready.append(shard)

    def _release_parked(self) -> None:
        """The vendor takes items again: what was refused before has all of its budget again."""
        assert self._parking is not None
        self._parking.release()
        for queue in self._queues.values():
            if queue and isinstance(queue[0], Send):
                queue[0].failing_since = queue[0].failed_at = 0.0

    def _split(self, send: Send, shard: int, reason: str, answer: Answer) -> None:
        """Halves a batch of which something was not acceptable; a single item is rejected."""
        batch = send.batch
        count = len(batch.items)
        if count == 1:
            self._fail(REJECTED, batch.items, reason, answer)
            return
        queue = self._queues[shard]
        queue.appendleft(Send(some(batch, range(count // 2, count))))
        queue.appendleft(Send(some(batch, range(count // 2))))

    def _delivered(self, items: Sequence[SourcedItem]) -> None:
        self.tally.delivered += len(items)
        if items and self._journal is not None:
            self._journal.delivered(items)

    def _fail(self, outcome: str, items: Sequence[SourcedItem], reason: str, answer: Answer | None = None) -> None:
        status = answer.status if answer else 0
        text = excerpt(answer.body) if answer else ""
        models = self.models
        self.failed.extend(
            Failed(
                outcome, reason, origin.source, ref, models[model], user, time_ms, payload, status, text,
                segment=origin.segment,
            )
            for (payload, model, user, time_ms, ref), origin in items
        )  # fmt: skip
        number = len(items)
        if outcome == REJECTED:
            self.tally.rejected += number
        else:
            self.tally.undelivered += number
        self.tally.reasons[reason] = self.tally.reasons.get(reason, 0) + number
        self._gate.failed += number
        if self._journal is not None:
            self._journal.failed(outcome, reason, status, text, items)

    def _halted(self, halt: Halt, now: float) -> None:
        """Nothing more is sent: what is queued and not in flight waits on disk, or is undelivered."""
        flying = self._flying
        for shard in list(self._queues):
            if self._journal is None:
                while (send := self._next(shard)) is not None:
                    self._fail(UNDELIVERED, send.batch.items, f"not sent, as the destination stopped: {halt.reason}")
            else:
                del self._queues[shard]
                self._gate.leave(1)
            if shard in flying:
                self._queues[shard] = deque()
                self._gate.enter(1)
        self._ready.clear()
        self._later.clear()
        if self._journal is not None and flying:
            self._cut_at = self._cut_at or now + GRACE
            if now >= self._cut_at:
                self._cut()

    def _cut(self) -> None:
        """Waits no longer for answers. What these requests held is sent again the next time."""
        self._requests.abandon()
        self._flying.clear()
        self._gate.leave(len(self._queues))
        self._queues.clear()


def _takes(verdict: Verdict, batch: Batch) -> bool:
    """Whether an answer shows that the vendor is up: it took something, or refused it for what it is."""
    if isinstance(verdict, Partial):
        return len(set(verdict.again) - set(verdict.rejected)) < len(batch.items)
    return not isinstance(verdict, Retry | Stop)
