/** Mistakes in what is counted, remembered and sealed. Rules of the list: mutant.ts. */
import type { Mutant } from './mutant.ts'

export const outcomeMutants: readonly Mutant[] = [
  {
    name: 'R7-completions-by-count',
    what: 'a record remembers the last four requests, however young the others are',
    file: 'core/record/operation.ts',
    killedBy: 'server/register/proposer.test.ts',
    page: ['Base: R7 left out'],
    find: `if (bytes > rules.bytesMax * share || entries.length + 1 > rules.countMax * share) return undefined
  return { entries: [...entries, completion], marks }`,
    replace: `if (bytes > rules.bytesMax * share) return undefined
  return { entries: [...entries, completion].slice(-4), marks }`,
  },
  {
    name: 'R8-age-by-ballot',
    what: "the age of a completion is counted by the ballot's milliseconds",
    file: 'server/register/proposer.ts',
    page: ['Base: R8 left out'],
    find: 'Math.min(now.wall, medianOf(clocks))',
    replace: 'round.ballot.ms',
  },
  {
    name: 'R11-mixed-epochs',
    what: 'a round takes answers of any epoch',
    file: 'server/register/proposer.ts',
    killedBy: 'server/proxy/coordinator.test.ts',
    page: ['Learner, epoch: a round mixes epochs'],
    // Servers answer in the epoch that they were asked in, or refuse: the proposer's look at it is a second fence.
    isRare: true,
    find: 'if (answer.epoch !== phase.round.row.epoch) return',
    replace: 'if (answer.epoch < 0) return',
  },
  {
    name: 'zone-counts-twice',
    what: 'two answers of one zone are two votes',
    file: 'server/register/proposer.ts',
    page: ['Handover: A and B counted as two zones'],
    find: 'phase.accepted.add(answer.zone)',
    replace: 'phase.accepted.add(phase.accepted.size)',
  },
  {
    name: 'floor-falls-to-evicted',
    what: 'the oldest promise goes instead of the lowest, and the floor becomes its ballot, also when that is lower',
    file: 'server/register/promises.ts',
    killedBy: 'server/register/promises.test.ts',
    page: ['Promises: floor set to a lower evicted ballot'],
    find: `    const row = this.#lowest.pop()
    if (row === undefined || this.#rows.get(row.key) !== row) return
    this.#rows.delete(row.key)
    this.#evictions++
    this.raiseFloor(row.ballot)
`,
    replace: `    const [row] = this.#rows.values()
    if (row === undefined) return
    this.#rows.delete(row.key)
    this.#evictions++
    this.#forgotten = row.ballot
`,
  },
  {
    name: 'R13-seal-for-50-ms',
    what: 'an expiry of more than 50 ms ago is not sealed',
    file: 'server/register/proposer.ts',
    page: ['Expiry: seal for 50 ms only'],
    find: 'entry.stub !== undefined || (entry.record.value !== undefined && isDead(entry.record, now))',
    replace:
      'now - entry.record.expiresAt < 50 && (entry.stub !== undefined || (entry.record.value !== undefined && isDead(entry.record, now)))',
  },
  {
    name: 'R13-seal-for-completions-life',
    what: "an expiry of longer ago than the completions' life is not sealed (in the simulator's times)",
    file: 'server/register/proposer.ts',
    page: [`Expiry: (seal until the completions' life only)`],
    find: 'entry.stub !== undefined || (entry.record.value !== undefined && isDead(entry.record, now))',
    replace:
      'now - entry.record.expiresAt < 760 && (entry.stub !== undefined || (entry.record.value !== undefined && isDead(entry.record, now)))',
    isRare: true,
  },
  {
    name: 'now-of-first-round',
    what: 'a request is decided at the time of its first round in all later ones',
    file: 'server/register/proposer.ts',
    page: ['Expiry: `now` of arrival used in a later round'],
    // Beside seals and P15 it does no harm that anybody could see: register/DESIGN.md, P7.
    isRare: true,
    find: 'const decision = apply(work.operation, record, now.wall,',
    replace: 'const decision = apply(work.operation, record, ((work as { at?: EpochMs }).at ??= now.wall),',
  },
  {
    name: 'same-id-twice-in-a-round',
    what: 'a request that is twice in one round is applied twice',
    file: 'server/register/proposer.ts',
    page: ['Combining: same id twice in one batch'],
    find: 'const decision = this.#apply(work, record, before, now, trimAt)',
    replace:
      'const { request } = work.operation ?? {}\n      const isTwin = [...answers.keys()].some(\n        ({ operation }) => request && operation?.request.session === request.session && operation.request.sequence === request.sequence,\n      )\n      const renamed = { ...work, operation: { ...work.operation, request: { ...request, session: `${request?.session} again` } } } as Work\n      const decision = this.#apply(isTwin ? renamed : work, record, before, now, trimAt)',
  },
  {
    name: 'proposer-id-reused',
    what: 'all proxies have one proposer id',
    file: 'server/register/ballot.ts',
    page: ['Pairs: proposer id reused'],
    find: 'return { ms, counter: this.#counter, proposer: this.#proposer }',
    replace: 'return { ms, counter: this.#counter, proposer: 1 }',
  },
  {
    name: 'two-records-under-one-ballot',
    what: 'an ACCEPT of another record at the accepted ballot is taken',
    file: 'server/register/acceptor.ts',
    killedBy: 'server/register/acceptor.test.ts',
    page: ['Pairs: equal ballot with another record accepted'],
    find: 'if (entry !== undefined && sameBallot(ballot, accepted)) {',
    replace: 'if (entry !== undefined && sameBallot(ballot, accepted) && digestOf(record) === (entry.stub ?? digestOf(entry.record))) {',
  },
  {
    name: 'R9-destroy-of-nothing-unrecorded',
    what: 'a repeated destroy that finds nothing is not remembered',
    file: 'core/record/operation.ts',
    page: ['Outcomes: destroy of nothing unrecorded at a repeat'],
    find: 'if (next === undefined && request.attempt < 2)',
    replace: "if (next === undefined && (request.attempt < 2 || operation.verb === 'destroy'))",
  },
  {
    name: 'age-from-arrival',
    what: 'the age of a request counts from its arrival at the proxy',
    file: 'server/register/proposer.ts',
    page: ['Outcomes: age from arrival'],
    find: `    this.#queue.push(work)
`,
    replace: `    this.#queue.push(work.sentAt === undefined ? work : Object.assign(work, { sentAt: now.wall }))
`,
  },
  {
    name: 'client-takes-any-answer',
    what: "a client takes the answer of whichever of its sendings comes first (the simulator's clients)",
    file: 'server/sim/workload.ts',
    killedBy: 'server/sim/history.test.ts',
    page: ["Outcomes: client takes any attempt's answer"],
    find: `        if (isOver) return
        const told = answerOf`,
    replace: '        const told = answerOf',
    also: {
      file: 'server/sim/history.ts',
      find: 'const last = sorted.at(-1) as Call',
      replace: `const last = (sorted
    .toSorted((a, b) => a.returnedAt - b.returnedAt)
    .find(({ answer }) => answer.type !== 'unknown' && answer.type !== 'no-effect') ?? sorted.at(-1)) as Call`,
    },
  },
]
