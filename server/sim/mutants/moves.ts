/** Mistakes in learners and moves. Rules of the list: mutant.ts. */
import type { Mutant } from './mutant.ts'

export const movesMutants: readonly Mutant[] = [
  {
    name: 'moves-one-source',
    what: 'a learner votes after one source',
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    page: ['Learner, epoch: votes after one source'],
    find: '    return sourcesOf(this.#marks.row?.servers.length ?? Infinity)',
    replace: '    return 1',
  },
  {
    name: 'moves-two-sources',
    what: 'a learner of five zones votes after two sources',
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: '    return sourcesOf(this.#marks.row?.servers.length ?? Infinity)',
    replace: '    return Math.min(2, sourcesOf(this.#marks.row?.servers.length ?? Infinity))',
  },
  {
    name: 'moves-no-clear-at-fence',
    what: 'a learner keeps what it had',
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: `    this.#replicas.clear(this.#shard)
`,
    replace: '',
    isRare: true,
  },
  {
    name: 'moves-no-ceiling-copied',
    what: 'the ceilings of its sources are no part of what a learner copies',
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: `    this.#replicas.raiseCeiling(this.#ceiling)
`,
    replace: '',
    isRare: true,
  },
  {
    name: 'moves-no-purged-copied',
    what: '`purged` is no part of what a learner copies',
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: 'const purged = maxBallot(this.#purged,',
    replace: 'const purged = maxBallot(noBallot,',
    isRare: true,
  },
  {
    name: 'moves-lowest-wins',
    what: 'a learner keeps the first entry of each key that comes',
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: 'return isBelow(stored.entry.ballot, entry.ballot)',
    replace: 'return false',
  },
  {
    name: 'moves-last-wins',
    what: 'a learner keeps the last entry of each key that comes',
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: 'return isBelow(stored.entry.ballot, entry.ballot)',
    replace: 'return true',
  },
  {
    name: 'moves-any-swap',
    what: "a learner goes on in an epoch that another one's transaction took",
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: "if (isDone) this.#step = 'fencing'",
    replace: "this.#step = 'fencing'",
    isRare: true,
  },
  {
    name: 'moves-no-marking',
    what: 'a learner takes its epoch before its mark is durable, and takes one that a recovery gave it anew',
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: "  #step: Step = 'marking'",
    replace: "  #step: Step = 'taking'",
  },
  {
    name: 'moves-whole-early',
    what: 'a source is whole after its first page',
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: `      source.isWhole = page.isLast
`,
    replace: `      source.isWhole = true
`,
    isRare: true,
  },
  {
    name: 'moves-damaged-ignored',
    what: 'what no source could read is absent',
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: "for (const [key] of unknown) this.#replicas.put(this.#shard, key, this.#recovers === undefined ? 'damaged' : undefined)",
    replace: 'for (const [key] of unknown) if (this.#recovers !== undefined) this.#replicas.put(this.#shard, key, undefined)',
    isRare: true,
  },
  {
    name: 'moves-damaged-from-one',
    what: 'what one source could not read is damaged, however many others read it',
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: 'whole.filter(([server]) => !servers.has(server)).length < needed',
    replace: 'whole.filter(([server]) => !servers.has(server)).length < whole.length',
    isRare: true,
  },
  {
    name: 'moves-recovery-hands-damage-on',
    what: 'in a recovery what one zone cannot read is damaged in all',
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: '      this.#recovers === undefined\n        ? whole',
    replace: '      true\n        ? whole',
    isRare: true,
  },
  {
    name: 'moves-recovery-forgets-received',
    what: 'an accepted loss takes what a receiver has, which no loss was',
    file: 'server/storage/ownership.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: " || state === 'learning' || state === 'received'",
    replace: " || state === 'learning'",
    isRare: true,
  },
  {
    name: 'moves-recovery-keeps-damage',
    what: 'in a recovery a zone keeps its damage although another one can read the key',
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: "if (stored.type === 'damaged' && !isRecovery) return",
    replace: "if (stored.type === 'damaged') return",
    isRare: true,
  },
  {
    name: 'moves-own-epoch-not-taken',
    what: 'a learner copies without an epoch of its own',
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: "this.#recovers === undefined ? 'taking' : 'copying'",
    replace: "'copying'",
    isRare: true,
  },
  {
    name: 'moves-no-freeze',
    what: 'A goes on answering while it sends the tail',
    file: 'server/storage/handover.ts',
    killedBy: 'server/storage/handover.test.ts',
    page: ['Handover: no freeze'],
    find: `    this.#replicas.close(this.#shard)
`,
    replace: '',
  },
  {
    name: 'moves-no-frozen-mark',
    what: 'A forgets in a restart that it is frozen',
    file: 'server/storage/handover.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: `    this.#replicas.mark(this.#shard, { state: 'frozen' })
`,
    replace: '',
  },
  {
    name: 'moves-tail-before-commit',
    what: 'the tail leaves before the last group commit',
    file: 'server/storage/handover.ts',
    killedBy: 'server/storage/handover.test.ts',
    page: ['Handover: tail before the last group commit'],
    find: `    journal.afterAll(() => {
      if ((this.#step !== 'chasing'`,
    replace: `    ;((f: () => void) => f())(() => {
      if ((this.#step !== 'chasing'`,
  },
  {
    name: 'moves-walk-before-commit',
    what: 'A reads what it sends before what it accepted is on the disk',
    file: 'server/storage/handover.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: `    this.#replicas.journal.afterAll(() => {
      if (this.#step === 'walking'`,
    replace: `    ;((f: () => void) => f())(() => {
      if (this.#step === 'walking'`,
    isRare: true,
  },
  {
    name: 'moves-outdated-at-freeze',
    what: 'A freezes for a move of an earlier epoch',
    file: 'server/storage/handover.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: `    if (this.#isOutdated) return this.stop()
    this.#step = 'freezing'`,
    replace: "    this.#step = 'freezing'",
    isRare: true,
  },
  {
    name: 'moves-no-abort',
    what: 'a freeze lasts until B answers',
    file: 'server/storage/handover.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: 'now.mono - this.#frozenMono > this.#times.freezeMs',
    replace: 'false',
    isRare: true,
  },
  {
    name: 'moves-unfreeze-without-map',
    what: 'A ends a freeze by itself',
    file: 'server/storage/handover.ts',
    killedBy: 'server/storage/handover.test.ts',
    page: ['Handover: (unfreeze without etcd)'],
    find: "if (this.#step === 'resuming') return this.#ports.askMap({ type: 'map-swap', id: this.#id, row: nextEpoch(row) })",
    replace: `if (this.#step === 'resuming') {
      this.#replicas.mark(this.#shard, { state: 'serving' })
      this.#replicas.serve(this.#shard)
      return this.stop()
    }`,
    isRare: true,
  },
  {
    name: 'moves-tail-after-the-end',
    what: 'A sends its tail, and asks for B, after it has begun to ask for itself',
    file: 'server/storage/handover.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: "if ((this.#step !== 'chasing' && this.#step !== 'freezing') || id !== this.#id) return",
    replace: `if (this.#step === 'over' || id !== this.#id) return
      this.#step = 'freezing'`,
    isRare: true,
  },
  {
    name: 'moves-changed-not-sent',
    what: 'what A accepts while it copies is not sent after',
    file: 'server/storage/handover.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: 'const keys = this.#replicas.durable(this.#shard, [...this.#changed].slice(0, keysMax))',
    replace: `const keys: readonly HandedKey[] = []
      this.#changed.clear()`,
  },
  {
    name: 'moves-switch-at-once',
    what: 'the map names B although what changed meanwhile was not sent',
    file: 'server/storage/handover.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: `    if (part.tail === undefined) return this.#next(now)
`,
    replace: `    if (part.tail === undefined && this.#step !== 'chasing') return this.#next(now)
    this.#step = 'freezing'
`,
  },
  {
    name: 'moves-no-ceiling-in-b',
    what: "B's ceiling is not raised to A's",
    file: 'server/storage/receiver.ts',
    killedBy: 'server/storage/handover.test.ts',
    page: ['Handover: (B without floor)'],
    find: `      this.#replicas.raiseCeiling(tail.ceiling)
`,
    replace: '',
    isRare: true,
  },
  {
    name: 'moves-no-purged-in-b',
    what: "B does not take A's `purged`",
    file: 'server/storage/receiver.ts',
    killedBy: 'server/storage/handover.test.ts',
    page: ['Handover: marks left out'],
    find: "{ state: 'received', purged: tail.purged }",
    replace: "{ state: 'received' }",
  },
  {
    name: 'moves-leftovers-stay',
    what: 'B keeps what it had of the shard',
    file: 'server/storage/receiver.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: `    this.#replicas.clear(shard) // leftovers first
`,
    replace: '',
  },
  {
    name: 'moves-stored-at-once',
    what: 'B says that a part is stored before it is durable',
    file: 'server/storage/receiver.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: `    }
    this.#replicas.journal.afterAll(stored)
  }`,
    replace: `    }
    stored()
  }`,
    isRare: true,
  },
  {
    name: 'moves-old-offer-wins',
    what: 'an offer that comes late empties a B that has all',
    file: 'server/storage/receiver.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: "state === 'received' ? offered > epoch",
    replace: "state === 'received' ? true",
    isRare: true,
  },
  {
    name: 'moves-any-move',
    what: 'B takes parts of another move',
    file: 'server/storage/receiver.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: 'if (move?.id !== id || move.from !== from || marks === undefined)',
    replace: 'if (move === undefined || marks === undefined)',
    isRare: true,
  },
  {
    name: 'moves-since-ignored',
    what: "a shard that was somebody else's meanwhile is served on",
    file: 'server/storage/ownership.ts',
    killedBy: 'server/storage/host.test.ts',
    find: '  const isSameOwner = since === marks.since',
    replace: '  const isSameOwner = true',
    isRare: true,
  },
  {
    name: 'moves-refuse-offer-ignored',
    what: 'A goes on with a move that B refused',
    file: 'server/storage/handover.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: `    if (this.#step === 'offering') return this.stop() // it has the shard in another way
`,
    replace: `    if (this.#step === 'offering') return
`,
    isRare: true,
  },
  {
    name: 'moves-silent-b',
    what: 'A waits for a silent B for ever',
    file: 'server/storage/handover.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: `    if (state !== 'frozen' && isSilent) return this.stop()
`,
    replace: `    void isSilent
`,
    isRare: true,
  },
  {
    name: 'moves-complains-at-once',
    what: 'a learner that only waits a little alarms a person',
    file: 'server/storage/learner.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: 'now.mono - this.#fencingMono < patiencePolls * this.#times.pollMs',
    replace: 'false',
    isRare: true,
  },
  {
    name: 'moves-floor-in-memory',
    what: 'B raises its ceiling in memory alone',
    file: 'server/storage/replicas.ts',
    killedBy: 'server/storage/handover.test.ts',
    page: [`Handover: (B's floor in memory only)`],
    find: `  raiseCeiling(to: Ballot): void {
`,
    replace: `  raiseCeiling(to: Ballot): void {
    if ([...this.#replicas.values()].some(({ marks }) => marks.state === 'receiving')) {
      this.#store = { ...this.#store, ceiling: maxBallot(this.#store.ceiling, to) }
      return
    }
`,
    isRare: true,
  },
  {
    name: 'moves-floor-from-promise-table',
    what: 'A hands over what its promise table has, which is nothing of before its start',
    file: 'server/storage/replicas.ts',
    killedBy: 'server/storage/handover.test.ts',
    page: ['Handover: (floor from the promise table)'],
    find: `  get store(): StoreMarks {
`,
    replace: `  get store(): StoreMarks {
    const isGiven = [...this.#replicas.values()].some(({ marks, onWrite }) => marks.state === 'frozen' && onWrite !== undefined)
    if (isGiven && this.#store.ceiling.ms <= this.#options.store.ceiling.ms) return { ...this.#store, ceiling: noBallot }
`,
    isRare: true,
  },
  {
    name: 'moves-b-takes-accepts',
    what: 'B takes ACCEPTs of proxies before the map names it',
    file: 'server/storage/host.ts',
    killedBy: 'server/storage/handover.test.ts',
    page: [`Handover: (B takes proxies' ACCEPTs)`],
    find: `    const { acceptor, marks } = replica
`,
    replace: `    const { acceptor, marks } = replica
    if (message.type === 'accept' && (marks.state === 'receiving' || marks.state === 'received')) {
      const { id, key, ballot, record } = message
      this.#replicas.put(shard, key, { ballot, record })
      return this.#answer(from, { id, shard, key, zone: this.#zone, clock: now.wall, epoch: marks.epoch, type: 'accepted' })
    }
`,
    isRare: true,
  },
]
