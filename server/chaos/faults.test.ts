/** The deck of faults: what may come together, and that every kind comes. */
import { expect, test } from 'vitest'
import { seededRandom } from '../../core/base/random.ts'
import { members, zones } from './cluster.ts'
import { drawnKinds, FaultDeck, type Fault, type Hurt } from './faults.ts'

const seed = Number(process.env['HAPAX_SEED'] ?? 1)

/** Draws while earlier faults are still there, each for a random number of draws. */
function drawMany(count: number): { readonly drawn: readonly Fault[]; readonly together: readonly (readonly Fault[])[] } {
  const random = seededRandom(seed)
  const deck = new FaultDeck(random, members)
  const under = new Map<Fault, number>()
  const drawn: Fault[] = []
  const together: Fault[][] = []
  for (let at = 0; at < count; at++) {
    for (const [fault, until] of under) if (until <= at) under.delete(fault)
    const faults = [...under.keys()]
    const hurt: Hurt = {
      zone: faults.find(({ zone }) => zone !== undefined)?.zone,
      claims: new Set(faults.flatMap(({ claims }) => claims)),
      isZoneTired: random.chance(0.2),
    }
    const fault = deck.draw(hurt)
    if (fault === undefined) continue
    if (fault.zone !== undefined && hurt.isZoneTired) expect.fail('a tired zone is left alone')
    drawn.push(fault)
    under.set(fault, at + 1 + random.int(4))
    together.push([...under.keys()])
  }
  return { drawn, together }
}

test('at most one zone, one proxy and each process once are hurt at once', () => {
  for (const faults of drawMany(2_000).together) {
    expect(new Set(faults.flatMap(({ zone }) => zone ?? [])).size).toBeLessThanOrEqual(1)
    const claims = faults.flatMap(({ claims }) => claims)
    expect(claims.length, JSON.stringify(faults)).toBe(new Set(claims).size)
    const proxies = faults.flatMap(({ process, links = [] }) => [process ?? '', ...links.map(({ target }) => target)])
    expect(new Set(proxies.filter((name) => name.startsWith('proxy-'))).size).toBeLessThanOrEqual(1)
  }
})

test('every kind, zone and process has its turn, for half a second to four', () => {
  const { drawn } = drawMany(600)
  expect(drawn.length).toBeGreaterThan(300)
  expect(new Set(drawn.map(({ kind }) => kind))).toEqual(new Set(drawnKinds))
  expect(new Set(drawn.flatMap(({ zone }) => zone ?? [])).size).toBe(zones)
  expect(new Set(drawn.flatMap(({ process }) => process ?? [])).size).toBe(members.length)
  for (const { holdMs } of drawn) expect(holdMs >= 500 && holdMs <= 4_000).toBe(true)
})

test('the same seed draws the same faults', () => {
  expect(drawMany(100).drawn).toEqual(drawMany(100).drawn)
})
