/** Mistakes in the register itself: R1 to R13. Rules of the list: mutant.ts. */
import type { Mutant } from './mutant.ts'

export const registerMutants: readonly Mutant[] = [
  {
    name: 'R1-ack-before-durable',
    what: 'ACCEPTED leaves before the entry is durable',
    file: 'server/storage/host.ts',
    killedBy: 'server/storage/host.test.ts',
    page: ['Base: R1 left out'],
    find: 'this.#journal.afterKey(message.shard, message.key, () => this.#ports.send(to, message))',
    replace:
      "if (message.type === 'accepted') this.#ports.send(to, message)\n    else this.#journal.afterKey(message.shard, message.key, () => this.#ports.send(to, message))",
  },
  {
    name: 'R2-no-floor',
    what: 'promises are forgotten at a restart',
    file: 'server/storage/replicas.ts',
    killedBy: 'server/storage/boot.test.ts',
    page: ['Base: R2 left out'],
    find: 'floor: this.#store.ceiling,',
    replace: 'floor: noBallot,',
  },
  {
    name: 'R4-read-without-quorum',
    what: 'a read answers the highest ballot without writing it back',
    file: 'server/register/reader.ts',
    page: ['Base: R4 left out'],
    find: "    round.step = 'writing-back'",
    replace: "    return this.#answerFrom(round, ballot, now)\n    round.step = 'writing-back'",
  },
  {
    name: 'R5-blind-put',
    what: 'an ACCEPT below the promise is taken',
    file: 'server/register/acceptor.ts',
    page: ['Base: R5 left out'],
    find: "if (isBelow(ballot, bound)) return { ...this.#head(message, epoch, now), type: 'rejected', reason: 'ballot', bound }",
    replace: '',
  },
  {
    name: 'R6-no-completions',
    what: 'a record does not remember requests',
    file: 'server/register/proposer.ts',
    page: ['Base: R6 left out'],
    find: 'const decision = apply(work.operation, record,',
    replace: 'const decision = apply({ ...work.operation, request: { ...work.operation.request, remember: false } }, record,',
  },
  {
    name: 'R13-no-seal',
    what: '"no key" by expiry is answered without a tombstone',
    file: 'server/register/proposer.ts',
    page: ['Expiry: no seal'],
    find: 'entry !== undefined && restsOnExpiry(entry, now.wall)) {',
    replace: 'entry !== undefined && false) {',
  },
]
