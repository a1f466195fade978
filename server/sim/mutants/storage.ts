/** Mistakes in what a storage server writes, keeps and drops. Rules of the list: mutant.ts. */
import type { Mutant } from './mutant.ts'

export const storageMutants: readonly Mutant[] = [
  {
    name: 'storage-journal-answers-at-once',
    what: 'an answer about a key that this turn writes leaves at once',
    file: 'server/storage/journal.ts',
    killedBy: 'server/storage/host.test.ts',
    find: `    if (touches(this.#gathering, id)) this.#gathering.then.push(run)
    else if`,
    replace: '    if',
  },
  {
    name: 'storage-journal-gathering-only',
    what: 'an answer does not wait for a write of its key that is under way',
    file: 'server/storage/journal.ts',
    killedBy: 'server/storage/host.test.ts',
    find: `    else if (touches(this.#inFlight, id)) this.#inFlight.then.push(run)
`,
    replace: '',
  },
  {
    name: 'storage-afterall-at-once',
    what: 'what waits for everything does not wait for what this turn writes',
    file: 'server/storage/journal.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: `    if (!isEmpty(this.#gathering)) this.#gathering.then.push(run)
    else if`,
    replace: '    if',
  },
  {
    name: 'storage-clear-forgotten-in-overlay',
    what: 'keys of an emptied shard are read from the disk until the write is done',
    file: 'server/storage/journal.ts',
    killedBy: 'server/storage/host.test.ts',
    find: `      if (batch?.cleared.has(shard)) return { entry: undefined }
`,
    replace: '',
  },
  {
    name: 'storage-clear-keeps-gathered',
    what: 'what the same turn wrote before it emptied a shard stays',
    file: 'server/storage/journal.ts',
    killedBy: 'server/storage/host.test.ts',
    find: `    for (const [id, one] of entries) if (one.shard === shard) entries.delete(id)
`,
    replace: '',
  },
  {
    name: 'storage-damage-ceiling-now',
    what: 'damage is bounded by the ceiling of now, not of when it was found',
    file: 'server/storage/replicas.ts',
    killedBy: 'server/storage/host.test.ts',
    find: `    if (known !== undefined) return known
`,
    replace: '',
  },
  {
    name: 'storage-damage-kept',
    what: 'a key that was written anew still counts as damaged',
    file: 'server/storage/replicas.ts',
    killedBy: 'server/storage/host.test.ts',
    find: `    if (entry !== 'damaged') held.damaged.delete(key)
`,
    replace: '',
  },
  {
    name: 'storage-page-unbounded-last',
    what: 'every page says that it is the last',
    file: 'server/storage/replicas.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: 'isLast: keysMax > 0 && found.length < keysMax && keys.length === found.length',
    replace: 'isLast: true',
  },
  {
    name: 'storage-no-onwrite',
    what: 'a move does not hear of writes',
    file: 'server/storage/replicas.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: `    held.onWrite?.(key)
`,
    replace: '',
  },
  {
    name: 'storage-purge-by-expiry',
    what: 'an entry goes as soon as it has expired',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    page: ['Purge: by expiry alone'],
    find: 'epochMs(Math.max(record.changedAt, record.expiresAt) + Math.max(completionsLifeMs, purgeAgeMs))',
    replace: 'epochMs(record.expiresAt + 0 * purgeAgeMs * completionsLifeMs)',
  },
  {
    name: 'storage-purge-age-only-changed',
    what: 'the age of a dead entry counts from its change, however late it expires',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: 'Math.max(record.changedAt, record.expiresAt)',
    replace: 'record.changedAt',
  },
  {
    name: 'storage-purge-before-life',
    what: "an entry goes before the completions' life is over",
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    page: [`Purge: before the completions' life`],
    find: 'Math.max(completionsLifeMs, purgeAgeMs))',
    replace: 'purgeAgeMs + 0 * completionsLifeMs)',
  },
  {
    name: 'storage-purge-by-quorum',
    what: 'an entry goes when a quorum holds it alike',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    page: ['Purge: confirmed by a quorum only'],
    find: 'question.answers.size === zones - 1',
    replace: 'question.answers.size >= (zones >> 1)',
  },
  {
    name: 'storage-no-purged',
    what: 'a drop leaves no bound behind',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    page: ['Purge: no `purged`'],
    find: '    this.#replicas.mark(this.#shard, { purged: maxBallot(replica.marks.purged, maxBallot(purged, horizon)) })',
    replace: '    void horizon',
  },
  {
    name: 'storage-no-horizon',
    what: 'a drop leaves its own ballot as the bound, and no horizon',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    page: ['Purge: no horizon'],
    find: 'maxBallot(replica.marks.purged, maxBallot(purged, horizon))',
    replace: 'maxBallot(replica.marks.purged, horizon.ms < 0 ? horizon : purged)',
  },
  {
    name: 'storage-epoch-of-answers',
    what: 'answers of an older epoch drop in a newer one',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: 'replica.marks.epoch !== question.epoch) return',
    replace: 'false) return',
  },
  {
    name: 'storage-drops-what-lives',
    what: 'what was written while the answers came is dropped',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: "if (stored.type !== 'entry' || !sameBallot(stored.entry.ballot, ballot)) continue // it lives again",
    replace: "if (stored.type !== 'entry') continue",
  },
  {
    name: 'storage-same-is-some',
    what: 'one zone that holds it alike is enough',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: 'if (!answers.every((isSame) => isSame[index] === true))',
    replace: 'if (!answers.some((isSame) => isSame[index] === true))',
  },
  {
    name: 'storage-no-repair',
    what: 'a zone that differs is not repaired',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: `        this.#ports.repair(key, now)
`,
    replace: `        void now
`,
  },
  {
    name: 'storage-absent-is-same',
    what: 'a zone that never had the entry says that it dropped it',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: 'return isAtMost(ballot, marks.purged)',
    replace: 'return true',
  },
  {
    name: 'storage-absent-differs',
    what: 'a zone that dropped the entry says that it differs',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: 'return isAtMost(ballot, marks.purged)',
    replace: 'return false',
  },
  {
    name: 'storage-any-ballot-same',
    what: 'a zone says that it holds the entry, at whatever ballot',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: "return stored.type === 'entry' && sameBallot(stored.entry.ballot, ballot)",
    replace: "return stored.type === 'entry'",
  },
  {
    name: 'storage-untrusted',
    what: 'a clock that is far from the proxies is trusted',
    file: 'server/storage/clock.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: `    if (Math.abs(now.wall - median) > this.#times.boundMs) return undefined
`,
    replace: '',
  },
  {
    name: 'storage-no-pings',
    what: 'a clock that no proxy vouches for is trusted',
    file: 'server/storage/clock.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: `    if (young.length === 0) return undefined
`,
    replace: `    if (young.length === 0) return now.wall
`,
  },
  {
    name: 'storage-stale-pings',
    what: 'a ping vouches for the clock for ever',
    file: 'server/storage/clock.ts',
    killedBy: 'server/storage/host.test.ts',
    find: `.filter(({ mono }) => now.mono - mono <= this.#times.pingLifeMs)
    if`,
    replace: `.filter(({ mono }) => mono >= 0)
    if`,
  },
  {
    name: 'storage-wall-alone',
    what: 'a wall clock that steps ahead is trusted',
    file: 'server/storage/clock.ts',
    killedBy: 'server/storage/host.test.ts',
    find: 'Math.min(now.wall, this.#boot.wall + (now.mono - this.#boot.mono))',
    replace: 'now.wall',
  },
  {
    name: 'storage-scrub-asks-once',
    what: 'the repair of a damaged key is asked for a few times only',
    file: 'server/storage/scrub.ts',
    killedBy: 'server/storage/host.test.ts',
    find: `    const damaged = this.#replicas.damagedOf(shard)
`,
    replace: `    const damaged = turn > 3 ? [] : this.#replicas.damagedOf(shard)
`,
  },
  {
    name: 'R3-answers-before-durable',
    what: 'a READ and a PREPARE are answered from a state that is not durable yet',
    file: 'server/storage/host.ts',
    killedBy: 'server/storage/host.test.ts',
    page: ['Base: R3 left out'],
    find: 'this.#journal.afterKey(message.shard, message.key, () => this.#ports.send(to, message))',
    replace: `if (message.type !== 'accepted') this.#ports.send(to, message)
    else this.#journal.afterKey(message.shard, message.key, () => this.#ports.send(to, message))`,
  },
  {
    name: 'storage-purged-in-memory',
    what: '`purged` is raised in memory alone',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    page: ['Purge: (volatile `purged`)'],
    find: 'this.#replicas.mark(this.#shard, { purged: maxBallot(replica.marks.purged, maxBallot(purged, horizon)) })',
    replace: 'Object.assign(replica, { marks: { ...replica.marks, purged: maxBallot(replica.marks.purged, maxBallot(purged, horizon)) } })',
    isRare: true,
  },
  {
    name: 'storage-ceiling-lowered',
    what: 'what no promise reached of the ceiling is given back when the map is told',
    file: 'server/storage/host.ts',
    killedBy: 'server/storage/boot.test.ts',
    page: ['Promises: ceiling lowered at stop'],
    find: `    this.#replicas.raiseCeiling(justAbove(this.#replicas.store.ceiling))
`,
    replace: `    const { ms } = this.#replicas.store.ceiling
    this.#replicas.markStore({ ceiling: { ...this.#replicas.store.ceiling, ms: Math.max(0, ms - 250) } })
`,
  },
]
