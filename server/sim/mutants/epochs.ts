/** Mistakes in what an epoch fences off, and in who may vote in it. Rules of the list: mutant.ts. */
import type { Mutant } from './mutant.ts'

export const epochMutants: readonly Mutant[] = [
  {
    name: 'boot-no-fence',
    what: 'a source hands over what it has without taking the epoch',
    file: 'server/storage/roles.ts',
    killedBy: 'server/storage/learner.test.ts',
    page: ['Learner, epoch: no fence at the source'],
    find: `    this.learnRow(row)
    if (!this.#maySource(shard, row)) return
    this.#replicas.journal.afterAll(() => {
      const replica = this.#replicas.of(shard)
      if (replica === undefined || !this.#maySource(shard, row)) return
`,
    replace: `    this.#replicas.journal.afterAll(() => {
      const replica = this.#replicas.of(shard)
      if (replica?.acceptor === undefined) return
`,
  },
  {
    name: 'boot-fence-in-memory',
    what: 'a source takes the epoch in memory alone',
    file: 'server/storage/roles.ts',
    killedBy: 'server/storage/learner.test.ts',
    page: ['Learner, epoch: (volatile fence)'],
    find: '        return this.#replicas.mark(shard, { epoch, row })',
    replace: '        return void Object.assign(this.#replicas.of(shard) as object, { marks: { ...marks, epoch, row } })',
    isRare: true,
  },
  {
    name: 'boot-epoch-on-prepare-only',
    what: 'READ and ACCEPT of an older epoch are answered in it',
    file: 'server/storage/host.ts',
    killedBy: 'server/storage/host.test.ts',
    page: ['Learner, epoch: epoch on PREPARE only'],
    find: `  step(from: string, message: ReplicaRequest, now: Instant): void {
`,
    replace: `  step(from: string, message: ReplicaRequest, now: Instant): void {
    const served = this.#replicas.of(message.shard)
    if (served?.acceptor !== undefined && message.type !== 'prepare' && message.epoch < served.marks.epoch)
      return this.#answer(from, served.acceptor.step(message, message.epoch, now.wall))
`,
  },
  {
    name: 'boot-read-without-epoch',
    what: 'a READ of an older epoch is answered in it',
    file: 'server/storage/host.ts',
    killedBy: 'server/storage/host.test.ts',
    page: ['Learner, epoch: READ without epoch'],
    find: `  step(from: string, message: ReplicaRequest, now: Instant): void {
`,
    replace: `  step(from: string, message: ReplicaRequest, now: Instant): void {
    const served = this.#replicas.of(message.shard)
    if (served?.acceptor !== undefined && message.type === 'read' && message.epoch < served.marks.epoch)
      return this.#answer(from, served.acceptor.step(message, message.epoch, now.wall))
`,
  },
  {
    name: 'boot-row-not-ours-forgotten',
    what: 'a row that names somebody else leaves no mark, so that an older one that names us seems to be a new cluster',
    file: 'server/storage/ownership.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: "if (marks === undefined) return !owns ? 'note' : row.recovers",
    replace: "if (marks === undefined) return !owns ? 'old' : row.recovers",
    isRare: true,
  },
  {
    name: 'boot-no-epoch',
    what: 'all messages of an older epoch are answered in it',
    file: 'server/storage/host.ts',
    killedBy: 'server/storage/host.test.ts',
    page: ['Learner, epoch: no epoch'],
    find: `  step(from: string, message: ReplicaRequest, now: Instant): void {
`,
    replace: `  step(from: string, message: ReplicaRequest, now: Instant): void {
    const served = this.#replicas.of(message.shard)
    if (served?.acceptor !== undefined && message.epoch < served.marks.epoch)
      return this.#answer(from, served.acceptor.step(message, message.epoch, now.wall))
`,
  },
  {
    name: 'boot-lost-store-votes',
    what: 'a store that lost its directory serves what the map says is its',
    file: 'server/storage/ownership.ts',
    killedBy: 'server/storage/learner.test.ts',
    page: ['Learner, epoch: a lost store votes'],
    find: `    case 'handed':
      return 'learn'`,
    replace: `    case 'handed':
      return 'serve'`,
  },
]
