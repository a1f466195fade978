import { describe, expect, it } from 'vitest'
import { noBallot, type Ballot } from '../register/ballot.ts'
import { standingOf } from './boot.ts'
import type { Identity } from './marks.ts'
import { Disk } from '../sim/disk.ts'
import { ballot, record, Stand } from './testdata/stand.ts'

const identity: Identity = {
  directory: 'd',
  server: 's',
  confirmed: { count: 3, value: 30 },
  next: [
    { count: 4, value: 40 },
    { count: 4, value: 41 },
  ],
  bootId: 'b',
  isBackup: false,
}
const inMap = (more: object = {}) => ({ server: 's', zone: 0, directory: 'd', incarnation: identity.confirmed, ceiling: noBallot, ...more })
const machine = { mode: 'fsync', bootId: 'b' } as const
const ceiling: Ballot = { ms: 50, counter: 0, proposer: 0 }

describe('what a directory is, by what the map says of it (B2)', () => {
  it.each([
    ['same', 'its confirmed incarnation', {}, {}, machine],
    ['same', 'the one that it asked for last', { incarnation: { count: 4, value: 41 } }, {}, machine],
    ['same', 'one that an earlier start asked for', { incarnation: { count: 4, value: 40 } }, {}, machine],
    ['behind', 'a later incarnation', { incarnation: { count: 5, value: 50 } }, {}, machine],
    ['behind', 'another start with the same count', { incarnation: { count: 4, value: 42 } }, {}, machine],
    ['behind', 'a higher ceiling', { ceiling: { ...ceiling, counter: 1 } }, {}, machine],
    ['same', 'the very ceiling', { ceiling }, {}, machine],
    ['foreign', 'another directory', { directory: 'other' }, {}, machine],
    ['foreign', 'this directory under another name', {}, { server: 't' }, machine],
    ['backup', 'whatever, under the mark of a backup', {}, { isBackup: true }, machine],
    ['same', 'another boot, where each write is synced', {}, {}, { mode: 'fsync', bootId: 'c' } as const],
    ['power-cycle', 'another boot, in os mode', {}, {}, { mode: 'os', bootId: 'c' } as const],
    ['power-cycle', 'a boot that cannot be read, in os mode', {}, {}, { mode: 'os', bootId: undefined } as const],
    [
      'power-cycle',
      'a later incarnation after another boot, in os mode',
      { incarnation: { count: 5, value: 50 } },
      {},
      { mode: 'os', bootId: 'c' } as const,
    ],
    [
      'behind',
      'a higher ceiling in the same boot, in os mode',
      { ceiling: { ...ceiling, ms: 60 } },
      {},
      { mode: 'os', bootId: 'b' } as const,
    ],
    ['same', 'the same boot, in os mode', {}, {}, { mode: 'os', bootId: 'b' } as const],
  ])('%s: the map has %s', (standing, _, row, own, on) => {
    expect(standingOf({ ...identity, ...own }, ceiling, inMap(row), on)).toBe(standing)
  })

  it('foreign: the map does not know the server', () => {
    expect(standingOf(identity, ceiling, undefined, machine)).toBe('foreign')
  })
})

describe('the first boot', () => {
  it('registers N empty directories at epoch 1, when all are there', () => {
    const stand = new Stand(3)
    expect(stand.map.rows).toEqual([{ shard: 0, epoch: 1, servers: ['s0', 's1', 's2'] }])
    expect(['s0', 's1', 's2'].map((name) => stand.shows(name))).toEqual(['no key', 'no key', 'no key'])
  })

  it('has a directory’s name on the disk before the map hears it', () => {
    const stand = new Stand(3)
    for (const { server, directory } of stand.map.map.servers) expect(stand.server(server).disk.store.identity?.directory).toBe(directory)
    stand.slow.add('t0')
    stand.add('t0')
    stand.run(100)
    expect(stand.map.map.servers.some(({ server }) => server === 't0')).toBe(false)
    stand.slow.clear()
    stand.run(100)
    expect(stand.map.map.servers.some(({ server }) => server === 't0')).toBe(true)
    expect(stand.state('t0')).toBe('handed')
  })
})

describe('a restart', () => {
  it('begins with floor := ceiling: what was promised is refused to everybody else (R2)', () => {
    const stand = new Stand(3)
    stand.prepare('s0', ballot(100))
    const { ceiling: before } = stand.server('s0').disk.store
    stand.restart('s0')
    stand.run(100)
    expect(stand.accept('s0', ballot(90), record('x'))).toMatchObject({ type: 'rejected', reason: 'lasting' })
    expect(stand.prepare('s0', ballot(100))).toMatchObject({ type: 'rejected', reason: 'ballot', bound: { ms: before.ms } })
  })

  it('serves nothing before the map has taken its incarnation', () => {
    const stand = new Stand(3)
    stand.accept('s0', ballot(5), record('five'))
    const before = stand.map.map.servers.find(({ server }) => server === 's0')?.incarnation
    stand.slow.add('s0')
    stand.restart('s0')
    stand.run(100)
    expect(stand.shows('s0')).toBe('no answer')
    expect(stand.map.map.servers.find(({ server }) => server === 's0')?.incarnation).toEqual(before) // on the disk first (B5)
    stand.slow.clear()
    stand.run(100)
    expect(stand.shows('s0')).toBe('five')
    expect(stand.map.map.servers.find(({ server }) => server === 's0')?.incarnation).not.toEqual(before)
  })

  it('stays closed while the map has read but not taken', () => {
    const stand = new Stand(3)
    const step = stand.map.step.bind(stand.map)
    stand.map.step = (request) =>
      request.type === 'map-raise' ? { type: 'map', id: -1, isDone: false, rows: [], servers: [] } : step(request)
    stand.holds = ({ message }) => message.type === 'known'
    stand.restart('s0')
    stand.run(100)
    expect(stand.shows('s0')).toBe('closed')
    stand.map.step = step
    stand.run(100)
    expect(stand.shows('s0')).toBe('no key')
  })

  it('finds an end between the two writes harmless, on either side', () => {
    const stand = new Stand(3)
    stand.accept('s0', ballot(5), record('five'))
    const { epoch } = stand.map.rows[0] as { epoch: number }
    for (let end = 0; end < 8; end++) {
      stand.restart('s0')
      for (let step = 0; step < end; step++) {
        stand.now += 10
        stand.server('s0').host?.tick(stand.instant('s0'))
        stand.server('s0').host?.endTurn()
        if (end % 2) stand.sync('s0')
      }
      stand.crash('s0', end % 3 === 0)
    }
    stand.start('s0')
    stand.run(300)
    expect(stand.shows('s0')).toBe('five')
    expect(stand.map.rows[0]?.epoch).toBe(epoch) // never a learner
  })

  it('knows a start of its own that took in the map after a later one began', () => {
    const stand = new Stand(3)
    stand.accept('s0', ballot(5), record('five'))
    stand.mapIsAway = true
    stand.restart('s0')
    const { map } = stand
    // Two starts that asked in vain; then the first one's word comes.
    const asked: Parameters<typeof map.step>[0][] = []
    for (let start = 0; start < 2; start++) {
      const step = map.step.bind(map)
      stand.mapIsAway = false
      map.step = (request) => {
        if (request.type !== 'map-raise') return step(request)
        asked.push(request)
        return { type: 'map', id: -1, isDone: false, rows: [], servers: [] }
      }
      stand.restart('s0')
      stand.run(30)
      map.step = step
      stand.crash('s0')
    }
    expect(asked.length).toBeGreaterThanOrEqual(2)
    expect(map.step(asked[0] as (typeof asked)[0]).isDone).toBe(true)
    stand.start('s0')
    stand.run(300)
    expect(stand.shows('s0')).toBe('five')
    expect(map.rows[0]?.epoch).toBe(1)
  })

  it('of an old copy of the directory makes a learner: it was started since', () => {
    const stand = new Stand(3)
    const old = stand.server('s0').disk.snapshot()
    stand.restart('s0')
    stand.run(100)
    for (const name of ['s0', 's2']) stand.accept(name, ballot(5), record('five'))
    stand.crash('s0')
    stand.server('s0').disk.restore(old)
    stand.start('s0')
    stand.run(300)
    expect(stand.map.rows[0]?.epoch).toBe(2)
    expect(stand.shows('s0')).toBe('five')
  })

  it('of an old copy makes a learner also without a start in between: its ceiling is behind (B8)', () => {
    const stand = new Stand(3)
    stand.prepare('s0', ballot(100))
    stand.run(150)
    const old = stand.server('s0').disk.snapshot()
    // Below the ceiling, so it is not raised by this.
    for (const name of ['s0', 's2']) expect(stand.accept(name, ballot(101), record('five'))?.type).toBe('accepted')
    stand.run(150)
    stand.crash('s0')
    stand.server('s0').disk.restore(old)
    stand.start('s0')
    stand.run(300)
    expect(stand.map.rows[0]?.epoch).toBe(2)
    expect(stand.shows('s0')).toBe('five')
  })

  it('of a copy from before the last word to the map is behind, also if nothing was written since (B8)', () => {
    const stand = new Stand(3)
    stand.prepare('s0', ballot(100))
    stand.run(150)
    const old = stand.server('s0').disk.snapshot()
    stand.run(150)
    stand.crash('s0')
    stand.server('s0').disk.restore(old)
    stand.start('s0')
    stand.run(300)
    expect(stand.alarms).toContain('a directory that may not vote: behind at s0')
  })

  it('never tells the map a ceiling that is not durable', () => {
    const stand = new Stand(3)
    stand.slow.add('s0')
    stand.prepare('s0', ballot(40_000))
    stand.run(300)
    stand.crash('s0')
    expect(stand.map.map.servers.find(({ server }) => server === 's0')?.ceiling.ms).toBeLessThan(ballot(40_000).ms)
    stand.slow.clear()
    stand.start('s0')
    stand.run(200)
    expect(stand.map.rows[0]?.epoch).toBe(1)
    expect(stand.state('s0')).toBe('serving')
  })

  it('lowers no ceiling when it tells it to the map, as it does at a stop', () => {
    const stand = new Stand(3)
    stand.prepare('s0', ballot(40_000))
    stand.server('s0').host?.tellCeiling(stand.instant('s0'))
    stand.settle()
    const { ceiling: told } = stand.server('s0').disk.store
    expect(told.ms).toBe(ballot(40_250).ms)
    stand.restart('s0')
    stand.run(200)
    expect(stand.prepare('s0', ballot(40_250))).toMatchObject({ type: 'rejected', reason: 'ballot' })
  })

  it('on a directory of another cluster learns, and keeps nothing of it', () => {
    const other = new Stand(3)
    other.accept('s0', ballot(5), record('theirs'))
    const stand = new Stand(3)
    stand.crash('s0')
    stand.server('s0').disk.restore(other.server('s0').disk.snapshot())
    const identityOf = (of: Stand) => of.server('s0').disk.store.identity
    // Two stands draw alike: give it a name of its own.
    const theirs = identityOf(stand) as Identity
    stand.server('s0').disk.begin({
      cleared: new Set(),
      entries: new Map(),
      shards: new Map([[7, { ...(stand.marks('s0') as NonNullable<ReturnType<Stand['marks']>>), shard: 7, epoch: 900 }]]),
      store: { ...stand.server('s0').disk.store, identity: { ...theirs, directory: 'theirs' } },
    })
    stand.server('s0').disk.finish()
    stand.start('s0')
    stand.run(300)
    expect(stand.map.rows[0]?.epoch).toBe(2)
    expect(stand.shows('s0')).toBe('no key')
    expect(stand.server('s0').disk.shards.find(({ shard }) => shard === 7)).toMatchObject({ state: 'handed', epoch: 0 })
  })
})

describe('a directory that is new', () => {
  it('takes no row of before its time for a new cluster’s: it had the shard once, and gave it away (H7)', () => {
    const stand = new Stand(3)
    stand.accept('s0', ballot(5), record('v'))
    const before = { shard: 0, epoch: 1, servers: ['s0', 's1', 's2'] }
    stand.add('t0')
    stand.run(100)
    stand.server('s0').host?.handOver(0, 't0', stand.instant('s0'))
    stand.run(500, true)
    expect(stand.state('t0')).toBe('serving')
    stand.crash('s0')
    stand.server('s0').disk = new Disk()
    stand.start('s0')
    stand.run(300)
    stand.server('s0').host?.learnRow(before) // an answer of the map that comes late, or a proxy that slept
    stand.run(100)
    expect(stand.state('s0')).toBe('handed')
    expect(stand.read('s0')?.type).toBe('rejected')
  })
})

describe('a restart while the map is away (B7)', () => {
  it('asks its peers, and serves when a quorum of zones knows of nothing newer', () => {
    const stand = new Stand(3)
    stand.accept('s0', ballot(5), record('five'))
    stand.mapIsAway = true
    stand.holds = ({ message }) => message.type === 'known'
    stand.restart('s0')
    stand.run(300)
    expect(stand.shows('s0')).toBe('closed')
    stand.holds = () => false
    stand.run(300)
    expect(stand.shows('s0')).toBe('five')
  })

  it('does not vote on the directory of another server, and tells a person', () => {
    const stand = new Stand(3)
    const foreign = stand.server('s1').disk.snapshot()
    stand.crash('s0')
    stand.server('s0').disk.restore(foreign)
    stand.mapIsAway = true
    stand.start('s0')
    stand.run(500)
    expect(stand.shows('s0')).toBe('closed')
    expect(stand.alarms).toContain('a directory that may not vote: foreign at s0')
    stand.mapIsAway = false
    stand.run(500)
    expect(stand.state('s0')).toBe('serving') // with what the others had
  })

  it('needs two others of five zones', () => {
    const stand = new Stand(5)
    stand.mapIsAway = true
    for (const name of ['s2', 's3', 's4']) stand.crash(name)
    stand.restart('s0')
    stand.run(400)
    expect(stand.shows('s0')).toBe('closed')
    // s1 is up and s2 answers, though it waits itself.
    stand.start('s2')
    stand.run(400)
    expect(stand.shows('s0')).toBe('no key')
  })

  it('waits as a learner when a peer saw a later start in the map', () => {
    const stand = new Stand(3)
    const old = stand.server('s0').disk.snapshot()
    stand.restart('s0')
    stand.run(200) // the others read the map
    for (const name of ['s0', 's2']) stand.accept(name, ballot(5), record('five'))
    stand.crash('s0')
    stand.server('s0').disk.restore(old)
    stand.mapIsAway = true
    stand.start('s0')
    stand.run(500)
    expect(stand.state('s0')).toBe('learning')
    expect(stand.shows('s0')).toBe('closed')
    stand.mapIsAway = false
    stand.run(400)
    expect(stand.shows('s0')).toBe('five')
  })

  it('peers keep the latest start that they saw, whatever old answer of the map comes late', () => {
    const stand = new Stand(3)
    const early = stand.map.step({ type: 'map-read', id: 1 })
    stand.restart('s1')
    stand.run(200)
    const latest = stand.map.map.servers.find(({ server }) => server === 's1')?.incarnation
    expect(stand.server('s0').disk.store.seen['s1']).toEqual(latest)
    stand.server('s0').host?.heardMap(early, stand.instant('s0'))
    stand.settle()
    expect(stand.server('s0').disk.store.seen['s1']).toEqual(latest)
  })

  it('never serves a shard that it handed over', () => {
    const stand = new Stand(3)
    stand.add('t0')
    stand.run(100)
    stand.server('s0').host?.handOver(0, 't0', stand.instant('s0'))
    stand.run(300)
    stand.mapIsAway = true
    stand.restart('s0')
    stand.run(500)
    expect(stand.shows('s0')).toBe('closed')
  })

  it('hears from its peers that the shard was given to somebody else meanwhile', () => {
    const stand = new Stand(3)
    stand.add('t0')
    stand.run(100)
    stand.crash('s0')
    stand.map.step({ type: 'map-swap', id: 1, row: { shard: 0, epoch: 2, servers: ['t0', 's1', 's2'], since: [2, 1, 1] } })
    stand.run(300)
    stand.mapIsAway = true
    stand.start('s0')
    stand.run(500)
    expect(stand.state('s0')).toBe('handed')
  })

  it.each([1, 3])('is one of before the power cycle until the map knows of this start, with %i zones (B6)', (zones) => {
    const stand = new Stand(zones, { mode: 'os' })
    for (const name of stand.servers.keys()) stand.accept(name, ballot(5), record('five'))
    for (const { disk } of stand.servers.values()) disk.sync()
    stand.prepare('s0', ballot(40_000))
    stand.run(150) // the map hears of a ceiling that the power takes
    stand.crash('s0')
    stand.server('s0').disk.losePower(0)
    stand.server('s0').bootId = 'after'
    stand.slow.add('s0')
    stand.start('s0')
    stand.run(30)
    stand.mapIsAway = true
    stand.slow.clear()
    stand.settle() // this start is on the disk, and never came to the map
    stand.restart('s0')
    stand.mapIsAway = false
    stand.run(600)
    expect(stand.alarms.filter((alarm) => alarm.includes('behind'))).toEqual([])
    expect(stand.shows('s0')).toBe('five')
  })

  it('waits after a power cycle in os mode', () => {
    const stand = new Stand(3, { mode: 'os' })
    stand.mapIsAway = true
    stand.crash('s0')
    stand.server('s0').bootId = 'after'
    stand.start('s0')
    stand.run(500)
    expect(stand.state('s0')).toBe('learning')
    expect(stand.shows('s0')).toBe('closed')
  })
})
