import { describe, expect, it } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { dueAt } from './expiry.ts'
import { ballot, record, Stand, times, wall0 } from './testdata/stand.ts'

const everywhere = ['s0', 's1', 's2']
const hold = (stand: Stand, zones: readonly string[], ms: number, held = record('v', { dies: 100 }), key = 'k') => {
  for (const name of zones) expect(stand.accept(name, ballot(ms), held, { key })?.type).toBe('accepted')
}
const keeps = (stand: Stand, key = 'k') => everywhere.map((name) => stand.entry(name, key) !== undefined)

describe('payloads of dead entries', () => {
  it('go at once, and leave ballot and digest (E2)', () => {
    const stand = new Stand(3)
    hold(stand, ['s0'], 5)
    stand.run(20, true)
    expect(stand.entry('s0', 'k')?.record.value).toBeDefined()
    stand.run(150, true)
    const stub = stand.entry('s0', 'k')
    expect(stub?.record.value).toBeUndefined()
    expect(stub?.ballot).toEqual(ballot(5))
    expect(stand.accept('s0', ballot(5), record('v', { dies: 100 }))?.type).toBe('accepted')
    expect(stand.accept('s0', ballot(5), record('w', { dies: 100 }))).toMatchObject({ type: 'rejected', reason: 'digest' })
  })

  it('are dead for a proxy whose clock is behind, too: interleaving 3 has nothing to bring back', () => {
    const stand = new Stand(3)
    hold(stand, ['s0'], 5)
    stand.run(200, true)
    const answer = stand.read('s0')
    expect(answer).toMatchObject({ type: 'shown', isWhole: true, entry: { record: { value: undefined } } })
  })

  it.each([
    ['no proxy spoke', 0, false],
    ['it is ahead of the proxies by more than the bound', times.boundMs + 10, true],
    ['it is an hour ahead', 3_600_000, true],
    ['it is behind by more than the bound', -times.boundMs - 10, true],
  ])('stay while the clock is not to be trusted: %s (R15)', (_, offset, pings) => {
    const stand = new Stand(3)
    hold(stand, everywhere, 5)
    stand.server('s0').wallOffset = offset
    stand.run(2_000, pings)
    expect(stand.entry('s0', 'k')?.record.value).toBeDefined()
  })

  it('stay when the clock steps after a good ping', () => {
    const stand = new Stand(3)
    hold(stand, ['s0'], 5, record('v', { dies: 10_000 }))
    stand.run(100, true)
    stand.server('s0').wallOffset = 20_000
    stand.run(100)
    expect(stand.entry('s0', 'k')?.record.value).toBeDefined()
  })
})

describe('purge (R14)', () => {
  it('drops what all zones hold alike, when it is old enough, and raises `purged` in the same batch', () => {
    const stand = new Stand(3)
    hold(stand, everywhere, 5, record(undefined, { changed: 60 }))
    stand.run(700, true)
    expect(keeps(stand)).toEqual([true, true, true])
    stand.run(300, true)
    expect(keeps(stand)).toEqual([false, false, false])
    for (const name of everywhere) {
      const purged = stand.marks(name)?.purged.ms as number
      expect(purged).toBeGreaterThanOrEqual(wall0 + 5)
      // The horizon: late ACCEPTs that were prepared before it died are below it.
      expect(purged).toBeGreaterThan(wall0 + stand.now - times.purgeHorizonMs - 300)
      expect(purged).toBeLessThanOrEqual(wall0 + stand.now - times.purgeHorizonMs)
    }
    expect(stand.counts.get('purge-confirmed')).toBe(3)
  })

  it('never leaves a drop without its `purged`: they are one write', () => {
    const stand = new Stand(3)
    hold(stand, everywhere, 5, record(undefined, { changed: 60 }))
    stand.run(700, true)
    stand.slow.add('s0')
    stand.run(300, true)
    expect(stand.isWriting('s0')).toBe(true)
    stand.crash('s0')
    expect(stand.entry('s0', 'k')).toBeDefined()
    expect(stand.marks('s0')?.purged.ms).toBe(0)
    stand.start('s0')
    stand.slow.clear()
    stand.run(500, true)
    expect(stand.entry('s0', 'k')).toBeUndefined()
    expect(stand.marks('s0')?.purged.ms).toBeGreaterThan(0)
  })

  it('goes by the later of change and expiry', () => {
    const stand = new Stand(3)
    hold(stand, everywhere, 5, record(undefined, { dies: 1_000, changed: 60 }))
    stand.run(1_500, true)
    expect(keeps(stand)).toEqual([true, true, true])
    stand.run(600, true)
    expect(keeps(stand)).toEqual([false, false, false])
    const entry = { ballot: ballot(5), record: record(undefined, { dies: 1_000, changed: 60 }) }
    expect(dueAt(entry, times)).toBe(wall0 + 1_000 + times.purgeAgeMs)
    expect(dueAt(entry, { ...times, completionsLifeMs: 5_000 })).toBe(wall0 + 6_000)
    expect(dueAt({ ...entry, record: record('v') }, times)).toBeUndefined()
    expect(dueAt({ ...entry, record: record('v', { dies: 70 }) }, times)).toBe(epochMs(wall0 + 70))
  })

  it('waits for a zone that is away: interleaving 2', () => {
    const stand = new Stand(3)
    hold(stand, everywhere, 1, record('v', { dies: 150 }))
    stand.accept('s2', ballot(100), record('v', { dies: 2_100 })) // two minority touches in a row, at C alone
    stand.accept('s2', ballot(110), record('v', { dies: 2_200 }))
    stand.holds = ({ from, to }) => from === 's2' || to === 's2'
    stand.run(1_500, true)
    expect(keeps(stand)).toEqual([true, true, true])
    stand.release()
    stand.run(1_500, true) // C differs: it is written anew by a proxy, not dropped elsewhere
    expect(keeps(stand)).toEqual([true, true, true])
    expect(stand.sent.some(({ to, message }) => to === 'p' && message.type === 'repair' && message.key === 'k')).toBe(true)
    expect(stand.counts.get('purge-delayed-by-silence')).toBeGreaterThan(0)
    expect(stand.counts.get('purge-delayed-by-difference')).toBeGreaterThan(0)
  })

  it.each([
    ['a lower ballot', 3],
    ['a higher ballot', 9],
    ['nothing, and no `purged` above it', undefined],
  ])('has a zone repaired that holds %s', (_, other) => {
    const stand = new Stand(3)
    hold(stand, ['s0', 's1'], 5, record(undefined))
    if (other !== undefined) hold(stand, ['s2'], other, record(undefined))
    stand.run(2_000, true)
    expect(stand.entry('s0', 'k')).toBeDefined()
    expect(stand.sent.some(({ from, message }) => from === 's0' && message.type === 'repair' && message.key === 'k')).toBe(true)
    hold(stand, everywhere, 2_000, record(undefined)) // the repair
    stand.run(400, true)
    expect(keeps(stand)).toEqual([false, false, false])
  })

  it('takes a zone that dropped it already for one that holds it', () => {
    const stand = new Stand(3)
    hold(stand, everywhere, 5, record(undefined))
    stand.holds = ({ to, message }) => (to === 's1' || to === 's2') && message.type === 'held'
    stand.run(1_000, true)
    expect(keeps(stand)).toEqual([false, true, true])
    stand.held = []
    stand.holds = () => false
    stand.run(200, true)
    expect(keeps(stand)).toEqual([false, false, false])
  })

  it('counts answers of one epoch alone', () => {
    const stand = new Stand(3)
    hold(stand, everywhere, 5, record(undefined))
    stand.holds = ({ to, message }) => to === 's0' && message.type === 'held'
    stand.run(1_000, true)
    expect(stand.held.length).toBeGreaterThan(0)
    stand.ask('s0', { type: 'read', epoch: 2 }) // a newer epoch: something moved meanwhile
    stand.release()
    expect(stand.entry('s0', 'k')).toBeDefined()
  })

  it('is not helped by a zone in another epoch', () => {
    const stand = new Stand(3)
    hold(stand, everywhere, 5, record(undefined))
    stand.ask('s1', { type: 'read', epoch: 2 })
    stand.run(1_500, true)
    expect(stand.sent.some(({ from, message }) => from === 's1' && message.type === 'held')).toBe(false)
    expect(keeps(stand)).toEqual([true, true, true])
  })

  it('does not drop a key that lives again while the answers come', () => {
    const stand = new Stand(3)
    hold(stand, everywhere, 5, record(undefined))
    stand.holds = ({ to, message }) => to === 's0' && message.type === 'held'
    stand.run(860, true)
    const answers = stand.held.length
    expect(answers).toBeGreaterThan(0)
    expect(stand.accept('s0', ballot(900), record('again'))?.type).toBe('accepted')
    stand.release()
    expect(stand.shows('s0')).toBe('again')
  })

  it('says that it holds a ballot only when that is durable', () => {
    const stand = new Stand(3)
    hold(stand, ['s0', 's1'], 5, record(undefined))
    stand.run(700, true)
    stand.slow.add('s2')
    stand.accept('s2', ballot(5), record(undefined))
    stand.run(400, true)
    expect(stand.sent.some(({ from, message }) => from === 's2' && message.type === 'held' && message.isSame.includes(true))).toBe(false)
    stand.crash('s2')
    expect(keeps(stand).slice(0, 2)).toEqual([true, true])
  })

  it('an absent key takes no ACCEPT at or below `purged`, and one above', () => {
    const stand = new Stand(3)
    hold(stand, everywhere, 5, record(undefined))
    stand.run(1_200, true)
    const purged = stand.marks('s1')?.purged
    stand.restart('s1') // it is on the disk
    stand.run(200, true)
    expect(stand.accept('s1', ballot(0, 1), record('late'))).toMatchObject({ type: 'rejected', reason: 'lasting' })
    expect(stand.marks('s1')?.purged).toEqual(purged)
    expect(stand.accept('s0', { ...ballot(0), ms: (stand.marks('s0')?.purged.ms as number) + 1 }, record('new'))?.type).toBe('accepted')
  })

  it('waits while zones have promised something above ballot and horizon, for its ACCEPT may still come; a write ends that (E9)', () => {
    const stand = new Stand(3)
    hold(stand, everywhere, 5, record('v', { dies: 100 }))
    for (const name of ['s0', 's2']) expect(stand.prepare(name, ballot(2_400))?.type).toBe('promised')
    stand.run(1_500, true)
    expect(keeps(stand)).toEqual([true, true, true])
    expect(stand.accept('s1', ballot(2_400), record('late', { dies: 9_000 }))?.type).toBe('accepted')
    for (const name of ['s0', 's1', 's2'])
      expect(stand.sent.some(({ from, message }) => from === name && message.type === 'repair' && message.key === 'k')).toBe(true)
    hold(stand, everywhere, 2_500, record(undefined)) // the repair
    stand.run(400, true)
    expect(keeps(stand)).toEqual([false, false, false])
    expect(stand.accept('s0', ballot(2_400), record('late', { dies: 9_000 }))?.type).toBe('rejected')
  })

  it('waits for a zone that forgot what it promised, until that is below the horizon (E9)', () => {
    const stand = new Stand(3)
    hold(stand, everywhere, 5, record('v', { dies: 100 }))
    for (const name of ['s0', 's2']) {
      expect(stand.prepare(name, ballot(2_400))?.type).toBe('promised')
      stand.restart(name)
    }
    stand.run(2_000, true)
    expect(keeps(stand)).toEqual([true, true, true])
    expect(stand.counts.get('purge-delayed-by-promises')).toBeGreaterThan(0)
    stand.run(2_000, true)
    expect(keeps(stand)).toEqual([false, false, false])
    for (const name of everywhere) expect(stand.marks(name)?.purged.ms).toBeGreaterThanOrEqual(wall0 + 2_400)
  })

  it('who said that it holds the entry accepts nothing below the horizon any more, also after a start (E9)', () => {
    const stand = new Stand(3)
    hold(stand, everywhere, 5, record('v', { dies: 100 }))
    stand.holds = ({ from, message }) => from === 's1' && message.type === 'holds' // it drops nothing itself
    stand.run(1_200, true)
    expect(keeps(stand)).toEqual([false, true, false])
    const late = () => stand.accept('s1', ballot(350), record('late', { dies: 9_000 }))
    expect(late()).toMatchObject({ type: 'rejected', reason: 'lasting' })
    stand.restart('s1')
    stand.run(100) // nobody speaks, so it does not ask again
    expect(late()).toMatchObject({ type: 'rejected', reason: 'lasting' })
  })

  it('needs no other zone in a cluster of one', () => {
    const stand = new Stand(1)
    stand.accept('s0', ballot(5), record('v', { dies: 50 }))
    stand.run(1_500, true)
    expect(stand.entry('s0', 'k')).toBeUndefined()
    expect(stand.marks('s0')?.purged.ms).toBeGreaterThan(0)
  })

  it('goes through many keys, a bounded number at a time', () => {
    const stand = new Stand(3)
    for (const name of everywhere)
      for (let key = 0; key < 600; key++)
        stand
          .server(name)
          .host?.step(
            'p',
            { type: 'accept', id: 1, shard: 0, key: `k${key}`, epoch: 1, ballot: ballot(5), record: record(undefined) },
            stand.instant(name),
          )
    stand.settle()
    stand.run(1_300, true)
    expect([...Array(600).keys()].filter((key) => stand.entry('s1', `k${key}`) !== undefined)).toEqual([])
    for (const { message } of stand.sent) if (message.type === 'holds') expect(message.keys.length).toBeLessThanOrEqual(256)
  })
})
