import { describe, expect, it } from 'vitest'
import { movedTo, nextEpoch, recoveredBy } from '../cluster/map.ts'
import { ballot, record, Stand } from './testdata/stand.ts'

/** Three zones, and a second server in zone 0. */
function standWithSpare(zones = 3): Stand {
  const stand = new Stand(zones)
  stand.add('t0')
  stand.run(100)
  return stand
}
const move = (stand: Stand) => expect(stand.server('s0').host?.handOver(0, 't0', stand.instant('s0'))).toBe(true)
const row = (stand: Stand) => stand.map.rows[0] as NonNullable<(typeof stand.map.rows)[0]>
const isTail = ({ message }: Stand['sent'][number]) => message.type === 'part' && message.tail !== undefined

describe('a planned move within a zone', () => {
  it('takes everything over: entries, completions, `purged`, and then serves', () => {
    const stand = standWithSpare()
    const completion = {
      session: 's',
      sequence: 1,
      verb: 'set',
      outcome: 'applied',
      version: '',
      createdAt: 0,
      expiresAt: 0,
      at: 0,
    } as const
    const remembered = { ...record('five'), completions: { entries: [completion as never], marks: [] } }
    stand.accept('s0', ballot(5), remembered)
    for (const name of ['s0', 's1', 's2']) stand.accept(name, ballot(5), record(undefined), { key: 'dead' })
    stand.run(1_200, true)
    const purged = stand.marks('s0')?.purged
    expect(purged?.ms).toBeGreaterThan(0)
    move(stand)
    stand.run(300)
    expect(row(stand)).toEqual({ shard: 0, epoch: 2, servers: ['t0', 's1', 's2'], since: [2, 1, 1] })
    expect(stand.state('t0')).toBe('serving')
    expect(stand.entry('t0', 'k')).toEqual({ ballot: ballot(5), record: remembered })
    expect(stand.marks('t0')?.purged).toEqual(purged)
    expect(stand.accept('t0', ballot(4), record('late'), { key: 'dead' })).toMatchObject({ type: 'rejected', reason: 'lasting' })
  })

  it('leaves nothing at the giver, which tells stale proxies who has it now, also after a restart without the map', () => {
    const stand = standWithSpare()
    stand.accept('s0', ballot(5), record('five'))
    move(stand)
    stand.run(300)
    expect(stand.state('s0')).toBe('handed')
    expect(stand.entry('s0', 'k')).toBeUndefined()
    expect(stand.read('s0', { epoch: 1 })).toMatchObject({ type: 'rejected', reason: 'epoch', row: row(stand) })
    stand.mapIsAway = true
    stand.restart('s0')
    stand.run(300)
    expect(stand.read('s0', { epoch: 1 })).toMatchObject({ type: 'rejected', reason: 'epoch', row: row(stand) })
    expect(stand.shows('s0')).toBe('closed')
    expect(stand.counts.get('stale-owner-contacted')).toBe(2)
  })

  it('goes on answering while it copies; what it accepts meanwhile is sent after', () => {
    const stand = standWithSpare()
    for (const key of ['a', 'b']) stand.accept('s0', ballot(5), record('old'), { key })
    stand.holds = ({ message }) => message.type === 'stored'
    move(stand)
    stand.run(50)
    expect(stand.accept('s0', ballot(9), record('new'), { key: 'a' })?.type).toBe('accepted')
    expect(stand.accept('s0', ballot(9), record('first'), { key: 'c' })?.type).toBe('accepted')
    stand.release()
    stand.run(300)
    expect(['a', 'b', 'c'].map((key) => stand.shows('t0', { key }))).toEqual(['new', 'old', 'first'])
  })

  it('what is sent at once has bounded bytes, also what was written meanwhile', () => {
    const stand = standWithSpare()
    const large = (text: string) => record(text.repeat(700_000))
    for (const key of ['a', 'b', 'c']) stand.accept('s0', ballot(5), large('o'), { key })
    stand.holds = ({ message }) => message.type === 'stored'
    move(stand)
    stand.run(50)
    for (const key of ['a', 'b', 'c']) stand.accept('s0', ballot(9), large('n'), { key })
    stand.release()
    stand.run(300)
    const parts = stand.sent.flatMap(({ message }) => (message.type === 'part' ? [message] : []))
    expect(Math.max(...parts.map(({ keys }) => keys.length))).toBe(1)
    expect(['a', 'b', 'c'].map((key) => stand.shows('t0', { key }).slice(0, 2))).toEqual(['nn', 'nn', 'nn'])
  })

  it('B removes leftovers first, so that it has what A has and nothing else (V5)', () => {
    const stand = standWithSpare()
    move(stand)
    stand.run(300)
    stand.accept('t0', ballot(500), record('stray'), { key: 'stray' })
    stand.map.step({ type: 'map-swap', id: 1, row: movedTo(row(stand), 0, 's0') }) // by force: t0 keeps its entries
    stand.run(400)
    expect(stand.state('s0')).toBe('serving')
    expect(stand.entry('t0', 'stray')).toBeDefined()
    move(stand)
    stand.run(300)
    expect(stand.state('t0')).toBe('serving')
    expect(stand.entry('t0', 'stray')).toBeUndefined()
  })

  it('a server that lost the shard by force answers nothing of it in the new epoch', () => {
    const stand = standWithSpare()
    stand.map.step({ type: 'map-swap', id: 1, row: movedTo(row(stand), 0, 't0') })
    stand.run(100)
    expect(stand.read('s0')).toMatchObject({ type: 'rejected', reason: 'closed' })
    expect(stand.accept('s0', ballot(900), record('x'))).toMatchObject({ type: 'rejected', reason: 'closed' })
  })

  it('takes along what was accepted before it began and is not synced yet', () => {
    const stand = standWithSpare()
    stand.slow.add('s0')
    expect(stand.accept('s0', ballot(5), record('five'))).toBeUndefined()
    move(stand)
    stand.run(50)
    stand.slow.clear()
    stand.run(300)
    expect(stand.shows('t0')).toBe('five')
  })

  it('B takes no part of another move', () => {
    const stand = standWithSpare()
    stand.holds = isTail
    move(stand)
    stand.run(50)
    const keys = [{ key: 'stray', entry: { ballot: ballot(3), record: record('stray') } }]
    const parts = stand.sent.filter(({ message }) => message.type === 'part')
    stand.post({ from: 's0', to: 't0', message: { type: 'part', id: 99, shard: 0, number: parts.length, keys, tail: undefined } })
    stand.settle()
    expect(stand.sent.some(({ from, message }) => from === 't0' && message.type === 'refused' && message.id === 99)).toBe(true)
    stand.release()
    stand.run(300)
    expect(stand.state('t0')).toBe('serving')
    expect(stand.shows('t0', { key: 'stray' })).toBe('no key')
  })

  it('B takes no message of a proxy before the map names it: interleaving 8', () => {
    const stand = standWithSpare()
    stand.prepare('s0', ballot(9)) // A refuses what is below
    stand.holds = isTail
    move(stand)
    stand.run(50)
    expect(stand.state('t0')).toBe('receiving')
    for (const epoch of [1, 2]) {
      expect(stand.accept('t0', ballot(5), record('refused by A'), { epoch })).toMatchObject({ type: 'rejected', reason: 'closed' })
      expect(stand.prepare('t0', ballot(50), { epoch })).toMatchObject({ type: 'rejected', reason: 'closed' })
      expect(stand.read('t0', { epoch })).toMatchObject({ type: 'rejected', reason: 'closed' })
    }
    stand.release()
    stand.run(300)
    expect(stand.state('t0')).toBe('serving')
    expect(stand.shows('t0')).toBe('no key')
  })

  it('B begins with A’s ceiling as its floor: interleaving 7 (V11)', () => {
    const stand = standWithSpare()
    // b5 is at D alone. b6 is promised by A and C; its ACCEPT is on its way to C.
    stand.accept('s1', ballot(5), record('five'))
    expect(stand.prepare('s0', ballot(6))?.type).toBe('promised')
    expect(stand.prepare('s2', ballot(6))?.type).toBe('promised')
    move(stand)
    stand.run(300)
    expect(stand.state('t0')).toBe('serving')
    // A read writes b5 back, in the new epoch. A would have refused it for its promise.
    expect(stand.accept('t0', ballot(5), record('five'))).toMatchObject({ type: 'rejected', reason: 'lasting' })
    expect(stand.prepare('t0', ballot(6))).toMatchObject({ type: 'rejected', reason: 'ballot' })
  })

  it('B’s floor is above what A promised before A’s own restart, of which no promise is in memory', () => {
    const stand = standWithSpare()
    stand.prepare('s0', ballot(40_000))
    stand.restart('s0')
    stand.run(200)
    move(stand)
    stand.run(300)
    expect(stand.state('t0')).toBe('serving')
    expect(stand.accept('t0', ballot(40_000), record('late'))).toMatchObject({ type: 'rejected', reason: 'lasting' })
  })

  it('B’s floor outlives its restart right after the switch', () => {
    const stand = standWithSpare()
    stand.prepare('s0', ballot(40_000))
    move(stand)
    for (let step = 0; step < 30 && stand.state('t0') !== 'received'; step++) stand.run(10)
    stand.restart('t0')
    stand.run(300)
    expect(stand.state('t0')).toBe('serving')
    expect(stand.accept('t0', ballot(40_000), record('late'))).toMatchObject({ type: 'rejected', reason: 'lasting' })
    expect(stand.counts.get('handover-served-after-restart')).toBe(1)
  })

  it('B’s ceiling and tail are durable before the map names it', () => {
    const stand = standWithSpare()
    stand.accept('s0', ballot(5), record('five'))
    stand.holds = isTail
    move(stand)
    stand.run(50)
    expect(stand.state('s0')).toBe('frozen')
    stand.slow.add('t0')
    stand.release()
    stand.run(30)
    expect(row(stand).epoch).toBe(1)
    stand.slow.clear()
    stand.run(30)
    expect(stand.server('t0').disk.store.ceiling.ms).toBeGreaterThanOrEqual(stand.server('s0').disk.store.ceiling.ms)
    stand.run(200)
    expect(row(stand).servers[0]).toBe('t0')
  })

  it('the tail leaves after the last group commit: what was accepted before the freeze is in it (V8)', () => {
    const stand = standWithSpare()
    stand.holds = ({ message }) => message.type === 'stored'
    move(stand)
    stand.run(40)
    stand.slow.add('s0')
    expect(stand.accept('s0', ballot(9), record('nine'))).toBeUndefined() // written, not synced
    const id = stand.sent.length
    stand.release() // the walk is over: it freezes
    stand.run(20)
    expect(stand.sent.slice(id).filter(isTail)).toEqual([])
    stand.slow.clear()
    stand.run(300)
    const accepted = stand.sent.some(({ message, to }) => to === 'p' && message.type === 'accepted')
    expect(accepted).toBe(true)
    expect(stand.shows('t0')).toBe('nine')
  })

  it('a frozen replica answers none of the three, and only the map ends the freeze', () => {
    const stand = standWithSpare()
    stand.accept('s0', ballot(5), record('five'))
    stand.holds = isTail
    move(stand)
    stand.run(50)
    expect(stand.state('s0')).toBe('frozen')
    expect([stand.read('s0'), stand.prepare('s0', ballot(70)), stand.accept('s0', ballot(70), record('x'))]).toMatchObject([
      { reason: 'closed' },
      { reason: 'closed' },
      { reason: 'closed' },
    ])
    stand.mapIsAway = true
    stand.run(1_000)
    stand.restart('s0')
    stand.run(1_000)
    expect(stand.state('s0')).toBe('frozen')
    expect(stand.shows('s0')).toBe('closed')
    expect(stand.counts.get('accept-in-freeze')).toBe(1)
  })

  it('resumes in the next epoch when B does not take the tail (aborted handover)', () => {
    const stand = standWithSpare()
    stand.accept('s0', ballot(5), record('five'))
    stand.holds = isTail
    move(stand)
    stand.run(50)
    stand.run(400)
    expect(row(stand)).toMatchObject({ epoch: 2, servers: ['s0', 's1', 's2'] })
    expect(stand.shows('s0')).toBe('five')
    stand.release() // the tail comes to a B that waits in vain
    stand.run(200)
    expect(stand.shows('t0')).toBe('closed')
    expect(row(stand).servers[0]).toBe('s0')
    move(stand)
    stand.run(300)
    expect(stand.shows('t0')).toBe('five')
    expect([stand.counts.get('handover-aborted'), stand.counts.get('handover-served')]).toEqual([1, 1])
  })

  it('a tail that comes after a freeze has lasted too long stays here: the map is asked for A alone (V9, V10)', () => {
    const stand = standWithSpare(1)
    stand.accept('s0', ballot(5), record('five'))
    stand.holds = ({ message }) => message.type === 'stored'
    move(stand)
    stand.run(40)
    stand.slow.add('s0')
    stand.accept('s0', ballot(9), record('nine'))
    stand.release() // it freezes, and its last batch takes longer than a freeze may
    stand.mapIsAway = true
    stand.run(400)
    stand.mapIsAway = false
    stand.slow.clear()
    stand.settle()
    expect(row(stand)).toMatchObject({ epoch: 1, servers: ['s0'] })
    stand.run(400)
    expect(stand.sent.filter(isTail)).toEqual([])
    expect(row(stand)).toMatchObject({ epoch: 2, servers: ['s0'] })
    expect(stand.shows('s0')).toBe('nine')
  })

  it('a giver that ended while frozen asks the map, and goes on where it was named', () => {
    const stand = standWithSpare()
    stand.accept('s0', ballot(5), record('five'))
    stand.holds = isTail
    move(stand)
    stand.run(50)
    stand.restart('s0')
    stand.holds = () => false
    stand.run(300)
    expect(row(stand)).toMatchObject({ epoch: 2, servers: ['s0', 's1', 's2'] })
    expect(stand.shows('s0')).toBe('five')
  })

  it('a giver that ended after the map named B does not serve, whatever its disk says', () => {
    const stand = standWithSpare()
    stand.accept('s0', ballot(5), record('five'))
    stand.holds = isTail
    move(stand)
    stand.run(50)
    stand.crash('s0')
    stand.release()
    stand.map.step({ type: 'map-swap', id: 1, row: movedTo(row(stand), 0, 't0') }) // its word came to the map; its answer was lost
    stand.start('s0')
    stand.run(300)
    expect(stand.state('s0')).toBe('handed')
    expect(stand.state('t0')).toBe('serving')
  })

  it('B keeps what it has when a loss is accepted before it hears that the shard is its own (D5, V11)', () => {
    const stand = standWithSpare(1)
    stand.accept('s0', ballot(5), record('five'))
    stand.holds = ({ message }) => message.type === 'stored'
    move(stand)
    for (let step = 0; step < 30 && stand.state('t0') !== 'received'; step++) {
      stand.run(10)
      const [last] = stand.held.slice(-1)
      if (last !== undefined && stand.state('t0') !== 'received') {
        stand.release()
        stand.holds = ({ message }) => message.type === 'stored' && stand.state('t0') === 'received'
      }
    }
    expect(stand.state('t0')).toBe('received')
    stand.crash('t0')
    stand.map.step({ type: 'map-swap', id: 1, row: movedTo(row(stand), 0, 't0') })
    stand.map.step({ type: 'map-swap', id: 2, row: recoveredBy(row(stand), [0]) })
    stand.start('t0')
    stand.run(300)
    expect(stand.shows('t0')).toBe('five')
  })

  it('B begins as a learner when A is lost before the tail is complete', () => {
    const stand = standWithSpare()
    for (const name of ['s0', 's2']) stand.accept(name, ballot(5), record('five'))
    stand.holds = isTail
    move(stand)
    stand.run(50)
    expect(stand.state('t0')).toBe('receiving')
    stand.lose('s0')
    stand.map.step({ type: 'map-swap', id: 1, row: movedTo(row(stand), 0, 't0') })
    stand.run(400)
    expect(stand.shows('t0')).toBe('five') // from the others: by then in an epoch of its own
    expect(row(stand).epoch).toBe(3)
  })

  it('a B that ended in between begins anew', () => {
    const stand = standWithSpare()
    stand.accept('s0', ballot(5), record('five'))
    stand.holds = ({ message }) => message.type === 'stored'
    move(stand)
    stand.run(40)
    stand.restart('t0')
    stand.holds = () => false
    stand.held = []
    stand.run(600)
    expect(stand.shows('t0')).toBe('five')
    expect(row(stand)).toMatchObject({ epoch: 2, servers: ['t0', 's1', 's2'] })
  })

  it('stops when the shard got another epoch meanwhile: B waits for the one after the offer (V7)', () => {
    const stand = standWithSpare()
    stand.accept('s0', ballot(5), record('five'))
    stand.holds = ({ message }) => message.type === 'stored'
    move(stand)
    stand.run(40)
    stand.map.step({ type: 'map-swap', id: 1, row: nextEpoch(row(stand)) }) // a learner of another zone
    stand.read('s0', { epoch: 2 }) // s0 hears of it from a proxy
    stand.release()
    stand.run(300)
    expect(stand.state('s0')).toBe('serving')
    expect(stand.shows('s0')).toBe('five')
    expect(row(stand)).toEqual({ shard: 0, epoch: 2, servers: ['s0', 's1', 's2'] })
  })

  it('an offer of the same epoch that comes late does not empty a B that has all of it', () => {
    const stand = standWithSpare()
    stand.accept('s0', ballot(5), record('five'))
    move(stand)
    stand.mapIsAway = true
    stand.run(60)
    expect(stand.state('t0')).toBe('received')
    stand.post({ from: 's0', to: 't0', message: { type: 'offer', id: 99, shard: 0, row: row(stand) } })
    stand.settle()
    expect(stand.state('t0')).toBe('received')
    expect(stand.entry('t0', 'k')?.ballot).toEqual(ballot(5))
  })

  it('A and B are one zone: a proxy counts answers by zone', () => {
    const stand = standWithSpare()
    move(stand)
    stand.run(300)
    expect(stand.read('t0')?.zone).toBe(0)
    expect(stand.read('s0', { epoch: 1 })?.zone).toBe(0)
  })

  it('comes to nothing when B is silent or refuses, and another one may begin', () => {
    const stand = standWithSpare()
    stand.accept('s0', ballot(5), record('five'))
    stand.crash('t0')
    move(stand)
    stand.run(3_000)
    expect(stand.shows('s0')).toBe('five')
    stand.start('t0')
    stand.run(100)
    move(stand)
    stand.run(300)
    expect(stand.shows('t0')).toBe('five')
    // To a server of another zone: it has the shard itself.
    expect(stand.server('t0').host?.handOver(0, 's1', stand.instant('t0'))).toBe(true)
    stand.run(50)
    expect(stand.server('t0').host?.handOver(0, 's0', stand.instant('t0'))).toBe(true)
    stand.run(300)
    expect(stand.shows('s0')).toBe('five')
  })

  it('a server that does not serve a shard gives nothing away', () => {
    const stand = standWithSpare()
    expect(stand.server('t0').host?.handOver(0, 's0', stand.instant('t0'))).toBe(false)
    expect(stand.server('s0').host?.handOver(0, 's0', stand.instant('s0'))).toBe(false)
    move(stand)
    expect(stand.server('s0').host?.handOver(0, 't0', stand.instant('s0'))).toBe(false)
  })
})
