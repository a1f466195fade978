/** Mistakes in what a storage server writes, keeps and drops. Rules of the list: mutant.ts. */
import type { Mutant } from './mutant.ts'

export const storageMutants: readonly Mutant[] = [
  {
    name: 'storage-journal-answers-at-once',
    what: 'journal answers at once',
    file: 'server/storage/journal.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: `    if (touches(this.#gathering, id)) this.#gathering.then.push(run)
    else if`,
    replace: '    if',
  },
  {
    name: 'storage-journal-gathering-only',
    what: 'journal gathering only',
    file: 'server/storage/journal.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: `    else if (touches(this.#inFlight, id)) this.#inFlight.then.push(run)
`,
    replace: '',
  },
  {
    name: 'storage-afterall-at-once',
    what: 'afterAll at once',
    file: 'server/storage/journal.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: `    if (!isEmpty(this.#gathering)) this.#gathering.then.push(run)
    else if`,
    replace: '    if',
  },
  {
    name: 'storage-clear-forgotten-in-overlay',
    what: 'clear forgotten in overlay',
    file: 'server/storage/journal.ts',
    killedBy: 'server/storage/host.test.ts',
    find: `      if (batch?.cleared.has(shard)) return { entry: undefined }
`,
    replace: '',
  },
  {
    name: 'storage-clear-keeps-gathered',
    what: 'clear keeps gathered',
    file: 'server/storage/journal.ts',
    killedBy: 'server/storage/host.test.ts',
    find: `    for (const [id, one] of entries) if (one.shard === shard) entries.delete(id)
`,
    replace: '',
  },
  {
    name: 'storage-damage-ceiling-now',
    what: 'damage ceiling now',
    file: 'server/storage/replicas.ts',
    killedBy: 'server/storage/host.test.ts',
    find: `    if (known !== undefined) return known
`,
    replace: '',
  },
  {
    name: 'storage-damage-kept',
    what: 'damage kept',
    file: 'server/storage/replicas.ts',
    killedBy: 'server/storage/host.test.ts',
    find: `    if (entry !== 'damaged') held.damaged.delete(key)
`,
    replace: '',
  },
  {
    name: 'storage-page-unbounded-last',
    what: 'page unbounded last',
    file: 'server/storage/replicas.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: 'isLast: keysMax > 0 && found.length < keysMax && keys.length === found.length',
    replace: 'isLast: true',
  },
  {
    name: 'storage-no-onwrite',
    what: 'no onWrite',
    file: 'server/storage/replicas.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: `    held.onWrite?.(key)
`,
    replace: '',
  },
  {
    name: 'storage-purge-by-expiry',
    what: 'purge by expiry',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    page: ['Purge: by expiry alone'],
    find: 'epochMs(Math.max(record.changedAt, record.expiresAt) + Math.max(completionsLifeMs, purgeAgeMs))',
    replace: 'epochMs(record.expiresAt + 0 * purgeAgeMs * completionsLifeMs)',
  },
  {
    name: 'storage-purge-age-only-changed',
    what: 'purge age only changed',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: 'Math.max(record.changedAt, record.expiresAt)',
    replace: 'record.changedAt',
  },
  {
    name: 'storage-purge-before-life',
    what: 'purge before life',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    page: [`Purge: before the completions' life`],
    find: 'Math.max(completionsLifeMs, purgeAgeMs))',
    replace: 'purgeAgeMs + 0 * completionsLifeMs)',
  },
  {
    name: 'storage-purge-by-quorum',
    what: 'purge by quorum',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    page: ['Purge: confirmed by a quorum only'],
    find: 'question.answers.size === zones - 1',
    replace: 'question.answers.size >= (zones >> 1)',
  },
  {
    name: 'storage-no-purged',
    what: 'no purged',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    page: ['Purge: no `purged`'],
    find: '    this.#replicas.mark(this.#shard, { purged: maxBallot(replica.marks.purged, maxBallot(purged, horizon)) })',
    replace: '    void horizon',
  },
  {
    name: 'storage-no-horizon',
    what: 'no horizon',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    page: ['Purge: no horizon'],
    find: 'maxBallot(replica.marks.purged, maxBallot(purged, horizon))',
    replace: 'maxBallot(replica.marks.purged, horizon.ms < 0 ? horizon : purged)',
  },
  {
    name: 'storage-epoch-of-answers',
    what: 'epoch of answers',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: 'replica.marks.epoch !== question.epoch) return',
    replace: 'false) return',
  },
  {
    name: 'storage-drops-what-lives',
    what: 'drops what lives',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: "if (stored.type !== 'entry' || !sameBallot(stored.entry.ballot, ballot)) continue // it lives again",
    replace: "if (stored.type !== 'entry') continue",
  },
  {
    name: 'storage-same-is-some',
    what: 'same is some',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: 'if (!answers.every((isSame) => isSame[index] === true))',
    replace: 'if (!answers.some((isSame) => isSame[index] === true))',
  },
  {
    name: 'storage-no-repair',
    what: 'no repair',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: `        this.#ports.repair(key, now)
`,
    replace: `        void now
`,
  },
  {
    name: 'storage-absent-is-same',
    what: 'absent is same',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: 'return isAtMost(ballot, marks.purged)',
    replace: 'return true',
  },
  {
    name: 'storage-absent-differs',
    what: 'absent differs',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: 'return isAtMost(ballot, marks.purged)',
    replace: 'return false',
  },
  {
    name: 'storage-any-ballot-same',
    what: 'any ballot same',
    file: 'server/storage/expiry.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: "return stored.type === 'entry' && sameBallot(stored.entry.ballot, ballot)",
    replace: "return stored.type === 'entry'",
  },
  {
    name: 'storage-untrusted',
    what: 'untrusted',
    file: 'server/storage/clock.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: `    if (Math.abs(now.wall - median) > this.#times.boundMs) return undefined
`,
    replace: '',
  },
  {
    name: 'storage-no-pings',
    what: 'no pings',
    file: 'server/storage/clock.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: `    if (young.length === 0) return undefined
`,
    replace: `    if (young.length === 0) return now.wall
`,
  },
  {
    name: 'storage-stale-pings',
    what: 'stale pings',
    file: 'server/storage/clock.ts',
    killedBy: 'server/storage/host.test.ts',
    find: `.filter(({ mono }) => now.mono - mono <= this.#times.pingLifeMs)
    if`,
    replace: `.filter(({ mono }) => mono >= 0)
    if`,
  },
  {
    name: 'storage-wall-alone',
    what: 'wall alone',
    file: 'server/storage/clock.ts',
    killedBy: 'server/storage/host.test.ts',
    find: 'Math.min(now.wall, this.#boot.wall + (now.mono - this.#boot.mono))',
    replace: 'now.wall',
  },
  {
    name: 'storage-scrub-asks-once',
    what: 'scrub asks once',
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
    find: `    this.#putsTold = this.#journal.puts
`,
    replace: `    this.#putsTold = this.#journal.puts
    const { ms } = this.#replicas.store.ceiling
    this.#replicas.markStore({ ceiling: { ...this.#replicas.store.ceiling, ms: Math.max(0, ms - 250) } })
`,
  },
]
