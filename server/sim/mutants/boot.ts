/** Mistakes in the start of a storage server and its place in the map. Rules of the list: mutant.ts. */
import type { Mutant } from './mutant.ts'

export const bootMutants: readonly Mutant[] = [
  {
    name: 'boot-learner-as-source',
    what: 'a learner gives what it has to others',
    file: 'server/storage/roles.ts',
    killedBy: 'server/storage/learner.test.ts',
    page: ['Learner, epoch: learner as source'],
    find: 'return replica.acceptor !== undefined || (recovers',
    replace: 'return true || (recovers',
  },
  {
    name: 'boot-row-of-request-ignored',
    what: 'a source does not learn the row of the request',
    file: 'server/storage/roles.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: `    this.learnRow(row)
    if (!this.#maySource`,
    replace: '    if (!this.#maySource',
    isRare: true,
  },
  {
    name: 'boot-fence-after-read',
    what: 'a source reads and sends before its epoch is durable',
    file: 'server/storage/roles.ts',
    killedBy: 'server/storage/learner.test.ts',
    page: ['Learner, epoch: fence after the read'],
    find: `    this.#replicas.journal.afterAll(() => {
      const replica = this.#replicas.of(shard)
      if (replica === undefined || !this.#maySource(shard, row)) return
`,
    replace: `    ;((run: () => void) => run())(() => {
      const replica = this.#replicas.of(shard)
      if (replica === undefined) return
`,
  },
  {
    name: 'boot-epoch-not-raised-by-message',
    what: 'a newer epoch in a message is not kept',
    file: 'server/storage/host.ts',
    killedBy: 'server/storage/host.test.ts',
    find: `    if (message.epoch > epoch) this.#replicas.mark(shard, { epoch: message.epoch })
`,
    replace: '',
    isRare: true,
  },
  {
    name: 'boot-older-epoch-taken',
    what: 'a message below the durable epoch is answered',
    file: 'server/storage/host.ts',
    killedBy: 'server/storage/host.test.ts',
    find: ' || message.epoch < epoch) return',
    replace: ' ) return',
    isRare: true,
  },
  {
    name: 'boot-row-not-told',
    what: 'who gave a shard away does not say who has it',
    file: 'server/storage/host.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: "    const mayTell = acceptor !== undefined || state === 'handed'",
    replace: '    const mayTell = acceptor !== undefined',
    isRare: true,
  },
  {
    name: 'boot-held-any-epoch',
    what: 'a zone in another epoch says what it holds',
    file: 'server/storage/roles.ts',
    killedBy: 'server/storage/expiry.test.ts',
    find: 'if (replica?.acceptor === undefined || replica.marks.epoch !== message.epoch) return',
    replace: 'if (replica?.acceptor === undefined) return',
    isRare: true,
  },
  {
    name: 'boot-ceiling-told-before-durable',
    what: 'the map hears of a ceiling that is not durable',
    file: 'server/storage/host.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: '    this.#journal.afterAll(() => this.#ports.askMap(request))',
    replace: '    this.#ports.askMap(request)',
  },
  {
    name: 'boot-power-cycle-forgotten',
    what: 'a start that the map never heard of makes one of after the power cycle of a directory that lost its end',
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: 'next: [...late, next], bootId, isBackup }',
    replace: 'next: [...late, next], bootId: this.#machine.bootId, isBackup }',
    isRare: true,
  },
  {
    name: 'boot-ceiling-told-as-it-is',
    what: 'what lies below the ceiling does not raise what the map hears, so a copy from before it looks new',
    file: 'server/storage/host.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: 'this.#replicas.raiseCeiling(justAbove(this.#replicas.store.ceiling))',
    replace: '',
    isRare: true,
  },
  {
    name: 'boot-foreign-rows-not-marked',
    what: 'an empty directory is not marked as a learner of what the map says is its',
    file: 'server/storage/roles.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: '      if (servers[this.#zone] === this.#server && this.#replicas.of(shard) === undefined) this.#replicas.reset(shard)',
    replace: '      void servers, shard',
  },
  {
    name: 'boot-rows-before-boot',
    what: 'a server goes by rows before it knows what its directory is',
    file: 'server/storage/roles.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: `    if (!this.#isOpen) {
      if (row`,
    replace: `    if (false) {
      if (row`,
  },
  {
    name: 'boot-leave-keeps-serving',
    what: 'who lost a shard by force goes on serving it',
    file: 'server/storage/roles.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: `        this.#replicas.close(shard)
        this.#replicas.mark(shard, { epoch, row, state: 'handed' })`,
    replace: "        this.#replicas.mark(shard, { epoch, row, state: 'handed' })",
    isRare: true,
  },
  {
    name: 'boot-leave-no-clear',
    what: 'the giver keeps what it gave away',
    file: 'server/storage/roles.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: `        if (isStored) this.#replicas.clear(shard)
`,
    replace: '',
    isRare: true,
  },
  {
    name: 'boot-learn-keeps-own',
    what: 'a learner of a recovery without it brings its own back',
    file: 'server/storage/roles.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: "keepsOwn: verdict !== 'learn'",
    replace: 'keepsOwn: true',
    isRare: true,
  },
  {
    name: 'boot-frozen-forgets',
    what: 'who ended while frozen does not ask the map',
    file: 'server/storage/roles.ts',
    killedBy: 'server/storage/handover.test.ts',
    find: `      if (marks.state === 'frozen' && !this.#givers.has(shard)) this.#giver(shard, undefined)
`,
    replace: '',
  },
  {
    name: 'boot-distrust-keeps',
    what: 'an old copy of a directory keeps what it has for a recovery',
    file: 'server/storage/roles.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: `        if (!keeps) this.#replicas.clear(shard)
`,
    replace: '',
    isRare: true,
  },
  {
    name: 'boot-zones-any',
    what: 'a map of another number of zones is taken',
    file: 'server/storage/roles.ts',
    killedBy: 'server/storage/host.test.ts',
    find: '    if (row.servers.length !== this.#zones) return',
    replace: '    if (false) return',
    isRare: true,
  },
  {
    name: 'boot-backup-votes',
    what: 'a directory with the mark of a backup votes',
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    page: ['Disk: old backup votes'],
    find: `  if (identity.isBackup) return 'backup'
`,
    replace: '',
  },
  {
    name: 'boot-foreign-votes',
    what: 'a directory of another server votes',
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: "if (row === undefined || row.server !== identity.server || row.directory !== identity.directory) return 'foreign'",
    replace: "if (row === undefined) return 'foreign'",
    isRare: true,
  },
  {
    name: 'boot-foreign-votes-without-map',
    what: 'a directory of another server votes while the map is away',
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: `    if (identity.server !== this.#server) return this.#ports.distrust('foreign', [])
`,
    replace: '',
    isRare: true,
  },
  {
    name: 'boot-ceiling-unchecked',
    what: 'a directory whose ceiling is behind the map votes',
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    page: ['Disk: old backup votes'],
    find: '!isKnown || isBelow(ceiling, row.ceiling)',
    replace: '!isKnown',
  },
  {
    name: 'boot-os-votes',
    what: 'a directory in `os` mode votes after a power cycle',
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    page: ['Disk: `os` mode votes after power loss'],
    find: `  if (hasPowerCycled(identity, machine)) return 'power-cycle'
`,
    replace: `  void machine
`,
  },
  {
    name: 'boot-confirmed-only',
    what: 'a start that took in the map, and whose end the directory did not see, is not known again',
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: '[identity.confirmed, ...identity.next].some((own) => sameIncarnation(own, row.incarnation))',
    replace: '[identity.confirmed].some((own) => sameIncarnation(own, row.incarnation))',
  },
  {
    name: 'boot-earlier-starts-forgotten',
    what: 'only the last start that was asked for is known again',
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: 'earlier.slice(1 - nextMax)',
    replace: '[]',
  },
  {
    name: 'boot-raise-before-disk',
    what: 'the map hears of a start that is not on the disk',
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: `    this.#replicas.journal.afterAll(() => {
      this.#write = 'sent'`,
    replace: `    ;((f: () => void) => f())(() => {
      this.#write = 'sent'`,
  },
  {
    name: 'boot-join-before-disk',
    what: "the map hears a directory's name before it is on the disk",
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: "    this.#replicas.journal.afterAll(() => this.#ports.askMap({ type: 'map-join'",
    replace: "    ;((f: () => void) => f())(() => this.#ports.askMap({ type: 'map-join'",
    isRare: true,
  },
  {
    name: 'boot-opens-before-raised',
    what: 'a server serves before the map has taken its start',
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: "    if (standing === 'same') return this.#raise(identity, row)",
    replace: `    if (standing === 'same') {
      this.#open()
      return this.#raise(identity, row)
    }`,
    isRare: true,
  },
  {
    name: 'boot-peers-not-asked',
    what: 'a server serves without the map and without its peers',
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: 'if (this.#peers.size + 1 >= quorumOf(this.#zones)) this.#open()',
    replace: 'this.#open()',
    isRare: true,
  },
  {
    name: 'boot-one-peer',
    what: 'of five zones one peer is enough',
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: 'if (this.#peers.size + 1 >= quorumOf(this.#zones)) this.#open()',
    replace: 'if (this.#peers.size >= 1) this.#open()',
    isRare: true,
  },
  {
    name: 'boot-seen-ignored',
    what: 'what a peer saw of a later start is ignored',
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: `    if (incarnation !== undefined && isOutdatedBy(identity, incarnation)) return this.#ports.distrust('behind', [])
`,
    replace: '',
    isRare: true,
  },
  {
    name: 'boot-power-ignored-without-map',
    what: 'after a power cycle in `os` mode a server votes by its peers alone',
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: `    if (hasPowerCycled(identity, this.#machine) && this.#zones > 1) return this.#ports.distrust('power-cycle', [])
`,
    replace: '',
    isRare: true,
  },
  {
    name: 'boot-source-below-epoch',
    what: 'a source gives although it did not take the epoch',
    file: 'server/storage/roles.ts',
    killedBy: 'server/storage/learner.test.ts',
    find: 'if (replica === undefined || replica.marks.epoch < epoch) return false',
    replace: 'if (replica === undefined) return false',
    isRare: true,
  },
  {
    name: 'boot-power-after-behind',
    what: 'a power cycle is not told from an old copy',
    file: 'server/storage/boot.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: `  if (hasPowerCycled(identity, machine)) return 'power-cycle'
  const isKnown`,
    replace: '  const isKnown',
    isRare: true,
  },
  {
    name: 'boot-seen-lowered',
    what: 'an old answer of the map makes a peer forget a later start',
    file: 'server/storage/host.ts',
    killedBy: 'server/storage/boot.test.ts',
    find: 'return known === undefined || (incarnation.count >= known.count && !sameIncarnation(known, incarnation))',
    replace: 'return known === undefined || !sameIncarnation(known, incarnation)',
    isRare: true,
  },
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
