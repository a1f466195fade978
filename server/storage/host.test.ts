import { describe, expect, it } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { nextEpoch } from '../cluster/map.ts'
import { ServerClock } from './clock.ts'
import { Journal } from './journal.ts'
import { verdictOf } from './ownership.ts'
import { noBallot } from '../register/ballot.ts'
import type { Batch, ReplicaState, ShardMarks } from './marks.ts'
import { ballot, record, Stand, times, wall0 } from './testdata/stand.ts'

const row = (stand: Stand) => stand.map.rows[0] as NonNullable<(typeof stand.map.rows)[0]>

describe('answers and what is durable (R1, R3)', () => {
  const slowly = () => {
    const stand = new Stand(3)
    stand.slow.add('s0')
    return stand
  }

  it('ACCEPTED leaves after its batch, and nothing is left of it when the process ends before', () => {
    const stand = slowly()
    expect(stand.accept('s0', ballot(5), record('five'))).toBeUndefined()
    stand.crash('s0')
    expect(stand.entry('s0', 'k')).toBeUndefined()
    expect(stand.sent.some(({ message }) => message.type === 'accepted')).toBe(false)
  })

  it.each(['read', 'prepare', 'accept'] as const)('%s waits for the state that it would reveal', (type) => {
    const stand = slowly()
    stand.accept('s0', ballot(500), record('five'))
    expect(stand.ask('s0', { type, ballot: ballot(4), record: record('x') })).toBeUndefined()
    const other = stand.ask('s0', { type, ballot: ballot(4), record: record('x'), key: 'other' })
    expect(other).toBeUndefined() // the ceiling is in the same batch
    stand.sync('s0')
    stand.sync('s0')
    expect(stand.sent.filter(({ to }) => to === 'p').length).toBeGreaterThanOrEqual(2)
  })

  it('a key that nobody writes is answered at once beside a slow write', () => {
    const stand = new Stand(3)
    stand.prepare('s0', ballot(10)) // the ceiling is high enough
    stand.slow.add('s0')
    stand.accept('s0', ballot(11), record('five'))
    expect(stand.shows('s0', { key: 'other' })).toBe('no key')
  })

  it('a PREPARE above the ceiling waits for the ceiling', () => {
    const stand = slowly()
    expect(stand.prepare('s0', ballot(300))).toBeUndefined()
    stand.sync('s0')
    expect(stand.server('s0').disk.store.ceiling).toEqual(ballot(550))
    expect(stand.sent.some(({ message }) => message.type === 'promised')).toBe(true)
  })
})

describe('a shard that is emptied (the journal)', () => {
  const texts = (journal: Journal, ...keys: string[]) =>
    keys.map((key) => {
      const written = journal.written(0, key)
      return written === undefined ? 'ask the disk' : written.entry === undefined ? 'gone' : 'written'
    })
  const entry = { ballot: ballot(1), record: record('v') }

  it('has nothing of before, in the very turn and while the write is under way, and all of after', () => {
    const batches: Batch[] = []
    const journal = new Journal((batch) => batches.push(batch))
    journal.put(0, 'before', entry)
    journal.clear(0)
    journal.put(0, 'after', entry)
    expect(texts(journal, 'before', 'after', 'disk')).toEqual(['gone', 'written', 'gone'])
    journal.endTurn()
    expect(batches[0]).toMatchObject({ cleared: new Set([0]), entries: new Map([['0/after', { key: 'after' }]]) })
    expect(texts(journal, 'before', 'after', 'disk')).toEqual(['gone', 'written', 'gone'])
    expect(journal.written(1, 'before')).toBeUndefined()
    journal.committed()
    expect(texts(journal, 'before', 'after')).toEqual(['ask the disk', 'ask the disk'])
  })

  it('is a change that every answer waits for', () => {
    const journal = new Journal(() => undefined)
    let ran = 0
    journal.clear(0)
    journal.afterKey(1, 'k', () => ran++)
    journal.endTurn()
    journal.afterKey(1, 'k', () => ran++)
    journal.afterAll(() => ran++)
    expect(ran).toBe(0)
    journal.committed()
    expect(ran).toBe(3)
  })
})

describe('epochs', () => {
  it('a newer one is durable before anything is answered under it', () => {
    const stand = new Stand(3)
    stand.slow.add('s0')
    expect(stand.read('s0', { epoch: 2 })).toBeUndefined()
    expect(stand.marks('s0')?.epoch).toBe(1)
    stand.sync('s0')
    expect(stand.marks('s0')?.epoch).toBe(2)
    expect(stand.sent.at(-1)?.message).toMatchObject({ type: 'shown', epoch: 2 })
  })

  it('an older one is told the newer row, for each of the three (stale owner or stale proxy)', () => {
    const stand = new Stand(3)
    stand.map.step({ type: 'map-swap', id: 1, row: nextEpoch(row(stand)) })
    stand.run(100)
    const refusal = { type: 'rejected', reason: 'epoch', row: row(stand), epoch: 2 }
    expect(stand.read('s0', { epoch: 1 })).toMatchObject(refusal)
    expect(stand.prepare('s0', ballot(9), { epoch: 1 })).toMatchObject(refusal)
    expect(stand.accept('s0', ballot(9), record('x'), { epoch: 1 })).toMatchObject(refusal)
    expect(stand.shows('s0')).toBe('no key')
    expect(stand.counts.get('stale-epoch-refused')).toBe(3)
  })

  it('an older one is refused also by a server that heard of the newer one from a proxy alone', () => {
    const stand = new Stand(3)
    stand.mapIsAway = true
    stand.read('s0', { epoch: 2 })
    expect(stand.accept('s0', ballot(9), record('x'), { epoch: 1 })).toMatchObject({ type: 'rejected', reason: 'closed' })
  })

  it('a shard that was never here is closed', () => {
    const stand = new Stand(3)
    expect(stand.read('s0', { shard: 9 })).toMatchObject({ type: 'rejected', reason: 'closed' })
  })

  it('a map of another number of zones is refused', () => {
    const stand = new Stand(3)
    stand.server('s0').host?.learnRow({ shard: 0, epoch: 2, servers: ['s0', 's1', 's2', 's3', 's4'] })
    stand.run(50)
    expect(stand.marks('s0')).toMatchObject({ epoch: 1, state: 'serving' })
    expect(stand.alarms.some((alarm) => alarm.includes('another number of zones'))).toBe(true)
  })
})

describe('a damaged record (D1 to D4)', () => {
  const damaged = () => {
    const stand = new Stand(3)
    for (const name of ['s0', 's1', 's2']) stand.accept(name, ballot(5), record('five'))
    stand.prepare('s0', ballot(400))
    stand.server('s0').disk.damage(0, 'k')
    return stand
  }

  it('answers no PREPARE and no READ, and says up to where it may have promised', () => {
    const stand = damaged()
    const refusal = { type: 'rejected', reason: 'damaged', bound: ballot(650) }
    expect(stand.read('s0')).toMatchObject(refusal)
    expect(stand.prepare('s0', ballot(9_000))).toMatchObject(refusal)
    expect(stand.accept('s0', ballot(650), record('x'))).toMatchObject(refusal)
  })

  it('takes an ACCEPT above the ceiling as it stood when the damage was found, and is whole again', () => {
    const stand = damaged()
    stand.read('s0')
    stand.prepare('s0', ballot(2_000), { key: 'other' }) // the ceiling rises, the bound does not
    expect(stand.accept('s0', ballot(651), record('six'))?.type).toBe('accepted')
    expect(stand.shows('s0')).toBe('six')
  })

  it('is found by the scrub, which asks a proxy to write the key until it is whole', () => {
    const stand = damaged()
    stand.run(600, true)
    const asked = () => stand.sent.filter(({ from, message }) => from === 's0' && message.type === 'repair' && message.key === 'k').length
    expect(asked()).toBeGreaterThanOrEqual(8)
    expect(stand.accept('s0', ballot(9_000), record('five'))?.type).toBe('accepted')
    const before = asked()
    stand.run(200, true)
    expect(asked()).toBe(before)
  })

  it('moves to another server as damaged', () => {
    const stand = damaged()
    stand.add('t0')
    stand.run(100)
    stand.server('s0').host?.handOver(0, 't0', stand.instant('s0'))
    stand.run(300)
    expect(stand.state('t0')).toBe('serving')
    expect(stand.read('t0')).toMatchObject({ type: 'rejected', reason: 'damaged' })
  })
})

describe('what a row makes of a replica (ownership)', () => {
  const marks = (state: ReplicaState, more: Partial<ShardMarks> = {}): ShardMarks => ({
    shard: 0,
    epoch: 5,
    state,
    purged: noBallot,
    row: undefined,
    since: state === 'received' ? 6 : 3,
    keepsOwn: false,
    ...more,
  })
  const ours = (epoch: number, since: number, more: object = {}) => ({
    shard: 0,
    epoch,
    servers: ['me', 'x', 'y'],
    since: [since, 1, 1],
    ...more,
  })
  const theirs = (epoch: number) => ({ shard: 0, epoch, servers: ['you', 'x', 'y'], since: [epoch, 1, 1] })

  it.each([
    ['nothing was ever here, in a new cluster', undefined, { shard: 0, epoch: 4, servers: ['me', 'x', 'y'] }, 'found'],
    ['nothing was ever here, and it was somebody else’s', undefined, ours(6, 6), 'learn'],
    ['nothing here, nothing ours', undefined, theirs(6), 'note'],
    ['an older row', marks('serving'), ours(4, 3), 'old'],
    ['a row that is known', marks('serving', { row: ours(5, 3) }), ours(5, 3), 'old'],
    ['the same owner in a newer epoch', marks('serving'), ours(6, 3), 'note'],
    ['away and back while we were down', marks('serving'), ours(8, 8), 'learn'],
    ['somebody else has it', marks('serving'), theirs(6), 'leave'],
    ['a freeze ends with us', marks('frozen'), ours(6, 3), 'serve'],
    ['a freeze goes on in its epoch', marks('frozen'), ours(5, 3), 'note'],
    ['a freeze ends with the other', marks('frozen'), theirs(6), 'leave'],
    ['away and back while we were frozen', marks('frozen'), ours(8, 8), 'learn'],
    ['all received, and named', marks('received'), ours(6, 6), 'serve'],
    ['all received, and named in a row that another zone’s learner made newer', marks('received'), ours(7, 6), 'serve'],
    ['all received in an epoch that came to nothing', marks('received'), ours(8, 8), 'learn'],
    ['all received, and not named', marks('received'), theirs(6), 'leave'],
    ['half received, and named', marks('receiving'), ours(6, 6), 'learn'],
    ['half received, in the epoch of the offer', marks('receiving'), theirs(5), 'note'],
    ['given away, and back', marks('handed'), ours(8, 8), 'learn'],
    ['given away, and further', marks('handed'), theirs(8), 'note'],
    ['a learner in a newer epoch', marks('learning'), ours(7, 3), 'note'],
    ['a recovery with us', marks('learning'), ours(7, 3, { recovers: [0, 1] }), 'gather'],
    ['a recovery with us, who vote', marks('serving'), ours(7, 3, { recovers: [0, 1] }), 'gather'],
    ['a recovery with us, who have nothing of our own', marks('handed'), ours(7, 7, { recovers: [0, 1] }), 'gather-anew'],
    ['a recovery without us', marks('serving'), ours(7, 3, { recovers: [1, 2] }), 'learn'],
  ] as const)('%s', (_, before, to, verdict) => {
    expect(verdictOf(before, to, 0, 'me')).toBe(verdict)
  })
})

describe('a server’s clock', () => {
  const at = (wall: number, mono: number) => ({ wall: epochMs(wall0 + wall), mono })

  it('is trusted for as long as a ping is young, while it agrees with the median', () => {
    const clock = new ServerClock(at(0, 0), times)
    expect(clock.trusted(at(10, 10))).toBeUndefined()
    clock.hear('p1', epochMs(wall0 + 12), at(10, 10))
    expect(clock.trusted(at(10, 10))).toBe(wall0 + 10)
    expect(clock.trusted(at(510, 510))).toBe(wall0 + 510)
    expect(clock.trusted(at(511, 511))).toBeUndefined()
  })

  it('does not obey one odd proxy', () => {
    const clock = new ServerClock(at(0, 0), times)
    for (const [proxy, wall] of [
      ['p1', 10],
      ['p2', 90_000],
      ['p3', 11],
    ] as const)
      clock.hear(proxy, epochMs(wall0 + wall), at(10, 10))
    expect(clock.trusted(at(10, 10))).toBe(wall0 + 10)
  })

  it('takes the smaller of the wall clock and of the time since the start', () => {
    const clock = new ServerClock(at(0, 0), times)
    clock.hear('p1', epochMs(wall0 + 100), at(100, 100))
    expect(clock.trusted(at(125, 100))).toBe(wall0 + 100)
    expect(clock.trusted(at(80, 100))).toBe(wall0 + 80)
  })

  it('asks the proxy that it heard last', () => {
    const clock = new ServerClock(at(0, 0), times)
    expect(clock.proxy(at(0, 0))).toBeUndefined()
    clock.hear('p1', epochMs(wall0), at(0, 0))
    clock.hear('p2', epochMs(wall0), at(0, 0))
    clock.hear('p1', epochMs(wall0), at(0, 10))
    expect(clock.proxy(at(0, 20))).toBe('p1')
    expect(clock.proxy(at(0, 600))).toBeUndefined()
  })
})
