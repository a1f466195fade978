import { describe, expect, it } from 'vitest'
import { recoveredBy } from '../cluster/map.ts'
import { ballot, record, Stand } from './testdata/stand.ts'

/** Zones that hold `text` at a ballot of this millisecond. */
const hold = (stand: Stand, zones: readonly string[], ms: number, text: string, more: object = {}) => {
  for (const name of zones) expect(stand.accept(name, ballot(ms), record(text), more)?.type).toBe('accepted')
}
const sourcesAsked = (stand: Stand) => stand.sent.filter(({ message }) => message.type === 'copy')

describe('a server that lost its directory', () => {
  it('is marked as a learner, durably, before the map hears of it (L1)', () => {
    const stand = new Stand(3)
    const before = stand.map.map.servers.find(({ server }) => server === 's0')
    stand.lose('s0')
    stand.slow.add('s0')
    stand.start('s0')
    stand.run(40)
    stand.sync('s0') // its new name
    stand.run(40)
    expect(stand.isWriting('s0')).toBe(true)
    expect(stand.map.rows[0]?.epoch).toBe(1)
    expect(stand.map.map.servers.find(({ server }) => server === 's0')).toEqual(before)
    stand.crash('s0', true)
    expect(stand.server('s0').disk.shards[0]?.state).toBe('handed') // not 'serving' from epoch 1, whatever ends it now
    expect(stand.server('s0').disk.store.identity?.directory).not.toBe(before?.directory)
  })

  it('does not count its old votes: interleaving 9 (R11)', () => {
    const stand = new Stand(3)
    // Z0 alone accepts b5 and answers; its directory is lost; it copies Z1 and Z2, and votes again.
    expect(stand.accept('s0', ballot(5), record('five'))?.type).toBe('accepted')
    stand.lose('s0')
    stand.start('s0')
    stand.run(300)
    expect(stand.state('s0')).toBe('serving')
    expect(stand.shows('s0')).toBe('no key')
    // The delayed ACCEPT(b5) reaches Z1 in the epoch in which it was sent: together with Z0's old answer it would be a quorum.
    expect(stand.accept('s1', ballot(5), record('five'), { epoch: 1 })).toMatchObject({
      type: 'rejected',
      reason: 'epoch',
      row: { epoch: 2 },
    })
    expect(stand.accept('s2', ballot(5), record('five'), { epoch: 1 })).toMatchObject({ type: 'rejected', reason: 'epoch' })
  })

  it('has what a minority of the others holds, if the lost vote made it a quorum (L4)', () => {
    const stand = new Stand(3)
    hold(stand, ['s0', 's2'], 5, 'five') // chosen
    stand.lose('s0')
    stand.start('s0')
    stand.run(300)
    expect(stand.shows('s0')).toBe('five')
    expect(stand.entry('s0', 'k')?.ballot).toEqual(ballot(5))
  })

  it('waits for N - quorum + 1 sources of other zones, and not for one healthy zone', () => {
    const stand = new Stand(3)
    hold(stand, ['s0', 's2'], 5, 'five')
    stand.crash('s2')
    stand.lose('s0')
    stand.start('s0')
    stand.run(500)
    expect(stand.state('s0')).toBe('learning')
    expect(stand.shows('s0')).toBe('closed')
    stand.start('s2')
    stand.run(300)
    expect(stand.shows('s0')).toBe('five')
  })

  it('tells nobody of a loss while it only waits a little', () => {
    const stand = new Stand(3)
    stand.crash('s2')
    stand.lose('s0')
    stand.start('s0')
    stand.run(300)
    expect(stand.counts.get('closed-for-loss')).toBeUndefined()
  })

  it('copies 3 of the 4 others of 5 zones: 2 of them can miss what was chosen', () => {
    const stand = new Stand(5)
    hold(stand, ['s0', 's3', 's4'], 5, 'five')
    stand.crash('s3')
    stand.crash('s4')
    stand.lose('s0')
    stand.start('s0')
    stand.run(500)
    expect(stand.state('s0')).toBe('learning')
    stand.start('s4')
    stand.run(300)
    expect(stand.shows('s0')).toBe('five')
  })

  it('takes the highest ballot of all sources', () => {
    const stand = new Stand(5)
    hold(stand, ['s1'], 5, 'five')
    hold(stand, ['s2'], 9, 'nine')
    hold(stand, ['s3'], 7, 'seven')
    stand.lose('s0')
    stand.start('s0')
    stand.run(300)
    expect(stand.shows('s0')).toBe('nine')
    expect([stand.counts.get('learner-served'), stand.counts.get('learner-met-difference')]).toEqual([1, 2])
  })

  it('answers none of the three before all copies are durable, then begins above every ceiling that it copied (L6)', () => {
    const stand = new Stand(3)
    hold(stand, ['s1', 's2'], 5, 'five')
    stand.prepare('s1', ballot(40_000)) // a ceiling that is far ahead
    const { ceiling } = stand.server('s1').disk.store
    stand.lose('s0')
    stand.start('s0')
    stand.holds = ({ message }) => message.type === 'page' && message.keys.length > 0
    stand.run(200)
    expect(stand.state('s0')).toBe('learning')
    stand.slow.add('s0')
    stand.release()
    stand.run(20)
    const answers = [stand.read('s0'), stand.prepare('s0', ballot(50_000)), stand.accept('s0', ballot(50_000), record('x'))]
    for (const answer of answers) expect(answer === undefined || answer.type === 'rejected').toBe(true)
    stand.slow.clear()
    stand.run(100)
    expect(stand.state('s0')).toBe('serving')
    expect(stand.prepare('s0', ballot(40_000))).toMatchObject({ type: 'rejected', reason: 'ballot', bound: { ms: ceiling.ms } })
    expect(stand.accept('s0', ballot(6), record('x'))).toMatchObject({ type: 'rejected', reason: 'lasting', bound: { ms: ceiling.ms } })
    expect(stand.accept('s0', ballot(5), record('five'))?.type).toBe('accepted') // repair stays alive
  })

  it('copies `purged`, so that it takes no late ACCEPT of what the others dropped', () => {
    const stand = new Stand(3)
    for (const name of ['s0', 's1', 's2']) stand.accept(name, ballot(5), record(undefined))
    stand.run(1_200, true)
    expect(stand.entry('s1', 'k')).toBeUndefined()
    const purged = stand.marks('s1')?.purged
    stand.lose('s0')
    stand.start('s0')
    stand.run(300, true)
    expect(stand.state('s0')).toBe('serving')
    expect(stand.marks('s0')?.purged.ms).toBeGreaterThanOrEqual(purged?.ms as number)
    expect(stand.accept('s0', ballot(4), record('late'))).toMatchObject({ type: 'rejected', reason: 'lasting' })
  })

  it('copies page after page', () => {
    const stand = new Stand(3)
    for (const name of ['s1', 's2'])
      for (let key = 0; key < 600; key++)
        stand
          .server(name)
          .host?.step(
            'p',
            { type: 'accept', id: 1, shard: 0, key: `k${key}`, epoch: 1, ballot: ballot(5), record: record('v') },
            stand.instant(name),
          )
    stand.settle()
    stand.lose('s0')
    stand.start('s0')
    stand.run(500)
    expect(stand.state('s0')).toBe('serving')
    for (let key = 0; key < 600; key++) expect(stand.entry('s0', `k${key}`)?.ballot).toEqual(ballot(5))
    const pages = stand.sent.filter(({ from, message }) => from === 's1' && message.type === 'page' && message.keys.length > 0)
    expect(pages.length).toBeGreaterThanOrEqual(3)
  })

  it('keeps nothing of its own: what all others dropped meanwhile would come back (L8)', () => {
    const stand = new Stand(3, { mode: 'os' })
    hold(stand, ['s1', 's2'], 5, 'five')
    hold(stand, ['s0'], 9, 'minority')
    hold(stand, ['s0'], 9, 'minority', { key: 'other' })
    stand.crash('s0')
    stand.server('s0').bootId = 'after'
    stand.start('s0')
    stand.run(300)
    expect(stand.state('s0')).toBe('serving')
    expect(stand.shows('s0')).toBe('five')
    expect(stand.shows('s0', { key: 'other' })).toBe('no key')
  })

  it('counts only the epoch that its own transaction took', () => {
    const stand = new Stand(3)
    const step = stand.map.step.bind(stand.map)
    let others = 0
    stand.map.step = (request) => {
      // Another learner is quicker, once: in its epoch an earlier life of this server may have voted.
      if (request.type === 'map-swap' && others++ === 0) step({ ...request, id: -1 })
      return step(request)
    }
    stand.lose('s0')
    stand.start('s0')
    stand.run(300)
    expect(stand.state('s0')).toBe('serving')
    expect(stand.map.rows[0]?.epoch).toBe(3)
  })

  it('begins anew, in another epoch, when it ends in between', () => {
    const stand = new Stand(3)
    hold(stand, ['s1', 's2'], 5, 'five')
    stand.lose('s0')
    stand.start('s0')
    stand.holds = ({ message }) => message.type === 'page' && message.keys.length > 0
    stand.run(200)
    const { epoch } = stand.map.rows[0] as { epoch: number }
    stand.restart('s0')
    stand.release()
    stand.run(300)
    expect(stand.map.rows[0]?.epoch).toBeGreaterThan(epoch)
    expect(stand.shows('s0')).toBe('five')
  })

  it('waits while the map is away', () => {
    const stand = new Stand(3)
    stand.mapIsAway = true
    stand.lose('s0')
    stand.start('s0')
    stand.run(500)
    expect(stand.shows('s0')).toBe('closed')
    expect(sourcesAsked(stand)).toEqual([])
    stand.mapIsAway = false
    stand.run(400)
    expect(stand.state('s0')).toBe('serving')
  })
})

describe('a source', () => {
  it('makes the new epoch durable before it reads what it hands over (L3)', () => {
    const stand = new Stand(3)
    stand.lose('s0')
    stand.slow.add('s1')
    stand.start('s0')
    stand.run(100)
    // The fence is written but not synced: nothing left, and what is accepted now belongs to the new epoch.
    expect(stand.isWriting('s1')).toBe(true)
    expect(stand.sent.some(({ from, message }) => from === 's1' && message.type === 'page')).toBe(false)
    expect(stand.accept('s1', ballot(5), record('late'), { epoch: 1 })).toBeUndefined()
    stand.slow.clear()
    stand.run(200)
    const refused = stand.sent.find(({ from, message }) => from === 's1' && message.type === 'rejected')
    expect(refused?.message).toMatchObject({ reason: 'epoch', epoch: 2 })
    expect(stand.marks('s1')?.epoch).toBe(2)
    expect(stand.state('s0')).toBe('serving')
  })

  it('learns the epoch from the request, whether the map is there or not', () => {
    const stand = new Stand(3)
    const step = stand.map.step.bind(stand.map)
    stand.map.step = (request) => {
      if (request.type === 'map-swap') stand.mapIsAway = true // from its answer on
      return step(request)
    }
    stand.lose('s0')
    stand.start('s0')
    stand.run(300)
    expect(stand.mapIsAway).toBe(true)
    expect(stand.state('s0')).toBe('serving')
    expect(stand.marks('s1')).toMatchObject({ epoch: 2, row: { epoch: 2 } })
  })

  it('that boots, and does not know yet what its directory is, serves by nobody’s row', () => {
    const stand = new Stand(3)
    const copy = {
      type: 'copy',
      id: 1,
      shard: 0,
      row: { ...(stand.map.rows[0] as object), epoch: 2 } as never,
      after: undefined,
      keysMax: 9,
    } as const
    stand.lose('s0')
    stand.mapIsAway = true
    stand.start('s0')
    stand.run(20)
    stand.post({ from: 's1', to: 's0', message: copy })
    stand.settle()
    stand.run(100)
    expect(stand.shows('s0', { epoch: 2 })).toBe('closed')
    expect(stand.sent.some(({ from, message }) => from === 's0' && message.type === 'page')).toBe(false)
  })

  it('gives nothing under a row whose epoch it did not take', () => {
    const stand = new Stand(3)
    const row = { ...(stand.map.rows[0] as object), epoch: 2, servers: ['s0', 's1', 's2', 's3', 's4'] } as never
    stand.post({ from: 's0', to: 's1', message: { type: 'copy', id: 1, shard: 0, row, after: undefined, keysMax: 9 } })
    stand.settle()
    expect(stand.marks('s1')?.epoch).toBe(1)
    expect(stand.sent.some(({ message }) => message.type === 'page')).toBe(false)
  })

  it('keeps the fence over a restart', () => {
    const stand = new Stand(3)
    stand.lose('s0')
    stand.start('s0')
    stand.run(300)
    stand.mapIsAway = true
    stand.restart('s1')
    stand.run(300)
    expect(stand.state('s1')).toBe('serving')
    expect(stand.accept('s1', ballot(1_000_000), record('x'), { epoch: 1 })).toMatchObject({ type: 'rejected', reason: 'epoch' })
  })

  it('votes: a learner gives nothing, so of two learners neither learns from the other', () => {
    const stand = new Stand(3)
    hold(stand, ['s0', 's1', 's2'], 5, 'five')
    stand.lose('s0')
    stand.lose('s1')
    stand.start('s0')
    stand.start('s1')
    stand.run(1_000)
    expect([stand.state('s0'), stand.state('s1')]).toEqual(['learning', 'learning'])
    expect(stand.sent.some(({ from, message }) => message.type === 'page' && from !== 's2')).toBe(false)
  })

  it('two learners at once of five learn, for three others vote', () => {
    const stand = new Stand(5)
    hold(stand, ['s0', 's1', 's4'], 5, 'five')
    stand.lose('s0')
    stand.lose('s1')
    stand.start('s0')
    stand.start('s1')
    stand.run(1_000)
    expect([stand.shows('s0'), stand.shows('s1')]).toEqual(['five', 'five'])
  })

  it('says of a key that it cannot read that it cannot: the learner does not take it for absent (D3)', () => {
    const stand = new Stand(3)
    hold(stand, ['s0', 's1'], 5, 'five')
    stand.server('s1').disk.damage(0, 'k')
    stand.lose('s0')
    stand.start('s0')
    stand.run(400)
    expect(stand.state('s0')).toBe('serving')
    expect(stand.read('s0')).toMatchObject({ type: 'rejected', reason: 'damaged' })
    expect(stand.shows('s0', { key: 'other' })).toBe('no key')
  })

  it('is no source for a key that it cannot read, if enough others are', () => {
    const stand = new Stand(5)
    hold(stand, ['s0', 's3', 's4'], 5, 'five')
    for (const name of ['s1']) stand.accept(name, ballot(5), record('five'))
    stand.server('s1').disk.damage(0, 'k')
    stand.lose('s0')
    stand.start('s0')
    stand.run(400)
    expect(stand.shows('s0')).toBe('five')
  })
})

describe('too few voting sources', () => {
  const powerless = (stand: Stand, name: string, kept: number) => {
    stand.crash(name)
    stand.server(name).disk.losePower(kept)
    stand.server(name).bootId = 'after'
  }

  it('a power cycle in `os` mode makes a learner, which keeps what it has until it has the others’ (D5)', () => {
    const stand = new Stand(3, { mode: 'os' })
    hold(stand, ['s0', 's1'], 5, 'five')
    powerless(stand, 's0', 0)
    stand.server('s0').bootId = undefined // and it cannot be read
    stand.start('s0')
    stand.run(400)
    expect(stand.state('s0')).toBe('serving')
    expect(stand.shows('s0')).toBe('five')
  })

  it('a killed process in `os` mode goes on with what it had', () => {
    const stand = new Stand(3, { mode: 'os' })
    hold(stand, ['s0', 's1'], 5, 'five')
    const { epoch } = stand.map.rows[0] as { epoch: number }
    stand.restart('s0')
    stand.run(200)
    expect(stand.shows('s0')).toBe('five')
    expect(stand.map.rows[0]?.epoch).toBe(epoch)
  })

  it('the shard stays closed until a person accepts the loss; then all that is left comes together, highest ballot first', () => {
    const stand = new Stand(3, { mode: 'os' })
    stand.server('s0').disk.sync()
    hold(stand, ['s0'], 5, 'five')
    hold(stand, ['s1', 's2'], 9, 'nine')
    hold(stand, ['s1', 's2'], 6, 'kept', { key: 'only' })
    for (const name of ['s0', 's1', 's2']) powerless(stand, name, name === 's2' ? 0 : 99)
    for (const name of ['s0', 's1', 's2']) stand.start(name)
    stand.run(1_000)
    expect(['s0', 's1', 's2'].map((name) => stand.shows(name))).toEqual(['closed', 'closed', 'closed'])
    expect(stand.counts.get('closed-for-loss')).toBe(3)
    expect(stand.alarms.filter((alarm) => alarm.includes('recover --accept-loss')).length).toBe(3)
    const row = stand.map.rows[0] as Parameters<typeof recoveredBy>[0]
    stand.map.step({ type: 'map-swap', id: 1, row: recoveredBy(row, [0, 1, 2]) })
    stand.run(600)
    expect(['s0', 's1', 's2'].map((name) => stand.shows(name))).toEqual(['nine', 'nine', 'nine'])
    expect(stand.shows('s2', { key: 'only' })).toBe('kept')
    expect(stand.alarms.some((alarm) => alarm.includes('what only lost stores had'))).toBe(true)
    expect(stand.counts.get('shard-recovered')).toBe(3)
  })

  it('a recovery takes what any zone can read, and gives up what none can', () => {
    const stand = new Stand(3, { mode: 'os' })
    hold(stand, ['s0', 's1', 's2'], 5, 'five')
    hold(stand, ['s0', 's1'], 5, 'gone', { key: 'unreadable' })
    hold(stand, ['s0'], 7, 'newest', { key: 'damaged' })
    hold(stand, ['s1'], 6, 'readable', { key: 'damaged' })
    for (const name of ['s0', 's1', 's2']) {
      stand.server(name).disk.sync()
      powerless(stand, name, 0)
    }
    for (const key of ['k', 'damaged', 'unreadable']) stand.server('s0').disk.damage(0, key)
    stand.server('s1').disk.damage(0, 'unreadable')
    for (const name of ['s0', 's1', 's2']) stand.start(name)
    stand.run(300)
    const row = stand.map.rows[0] as Parameters<typeof recoveredBy>[0]
    stand.map.step({ type: 'map-swap', id: 1, row: recoveredBy(row, [0, 1, 2]) })
    stand.run(600)
    const all = (key: string): string[] => ['s0', 's1', 's2'].map((name) => stand.shows(name, { key }))
    expect(all('k')).toEqual(['five', 'five', 'five'])
    expect(all('damaged')).toEqual(['readable', 'readable', 'readable'])
    expect(all('unreadable')).toEqual(['no key', 'no key', 'no key'])
  })

  it('whoever was not there at a recovery learns from those who were', () => {
    const stand = new Stand(3)
    hold(stand, ['s0', 's1', 's2'], 5, 'five')
    hold(stand, ['s0'], 9, 'given up', { key: 'other' })
    stand.crash('s0')
    stand.lose('s1')
    stand.start('s1')
    stand.run(300)
    const row = stand.map.rows[0] as Parameters<typeof recoveredBy>[0]
    stand.map.step({ type: 'map-swap', id: 1, row: recoveredBy(row, [1, 2]) })
    stand.run(400)
    expect([stand.shows('s1'), stand.shows('s2')]).toEqual(['five', 'five'])
    stand.start('s0')
    stand.run(400)
    expect(stand.state('s0')).toBe('serving')
    expect(stand.shows('s0', { key: 'other' })).toBe('no key')
    expect(stand.map.rows[0]?.epoch).toBe(4) // the recovery was the third: it takes one of its own, as any learner
  })

  it('a recovery has nothing of an old copy of a directory', () => {
    const stand = new Stand(3)
    hold(stand, ['s0'], 5, 'old')
    const old = stand.server('s0').disk.snapshot()
    stand.restart('s0')
    stand.run(100)
    for (const name of ['s0', 's1', 's2']) stand.crash(name)
    stand.lose('s1')
    stand.lose('s2')
    stand.server('s0').disk.restore(old)
    for (const name of ['s0', 's1', 's2']) stand.start(name)
    stand.run(500)
    const row = stand.map.rows[0] as Parameters<typeof recoveredBy>[0]
    stand.map.step({ type: 'map-swap', id: 1, row: recoveredBy(row, [0, 1, 2]) })
    stand.run(500)
    expect(['s0', 's1', 's2'].map((name) => stand.shows(name))).toEqual(['no key', 'no key', 'no key'])
  })

  it('one zone alone reopens after a power cycle and says so', () => {
    const stand = new Stand(1, { mode: 'os' })
    stand.accept('s0', ballot(5), record('five'))
    powerless(stand, 's0', 99)
    stand.start('s0')
    stand.run(200)
    expect(stand.shows('s0')).toBe('five')
    expect(stand.alarms.some((alarm) => alarm.includes('a power cycle'))).toBe(true)
  })
})
