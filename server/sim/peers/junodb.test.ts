/** The model of JunoDB: that it does what JunoDB does, message by message, and what the checker says of it without a fault. */
import { describe, expect, it } from 'vitest'
import { operationsOf, type CallAnswer } from '../history.ts'
import { check } from '../linearizable.ts'
import { wallStart } from '../clock.ts'
import { junodb, type JunoMessage } from './junodb.ts'
import type { PeerRequest } from './peer.ts'
import { coolKey, hotKey, playPeer, type PeerKnobs } from './play.ts'

interface Waiting {
  readonly from: string
  readonly to: string
  readonly message: JunoMessage
}

/** Three servers and a proxy whose messages wait until they are let go, by sender, receiver, type and request. */
class Bench {
  readonly #waiting: Waiting[] = []
  readonly #names = ['s0', 's1', 's2']
  readonly #servers = new Map(this.#names.map((name) => [name, junodb.server(this.#ports(name))]))
  readonly #proxy = junodb.proxy(this.#ports('p'), this.#names)
  #now = 0
  #requests = 0

  #ports(name: string) {
    return { send: (to: string, message: JunoMessage) => void this.#waiting.push({ from: name, to, message }), after: () => undefined }
  }

  /** Lets all that waits go on, and what follows from it, except what matches `held`. */
  run(held: RegExp = /^$/): void {
    for (let at = 0; at < this.#waiting.length;) {
      const { from, to, message } = this.#waiting[at] as Waiting
      if (held.test(`${from} ${to} ${message.type} ${message.id}`)) at++
      else {
        this.#waiting.splice(at, 1)
        ;(to === 'p' ? this.#proxy : this.#servers.get(to))?.receive(from, message, ++this.#now)
        at = 0
      }
    }
  }

  ask(verb: PeerRequest['verb'], value?: number, ifVersion?: string): () => CallAnswer | undefined {
    let told: CallAnswer | undefined
    this.#proxy.request({ verb, value, ifVersion, requestId: `r${++this.#requests}` }, ++this.#now, (answer) => (told = answer))
    return () => told
  }

  /** Asks, and lets everything go on but what is held. */
  do(verb: PeerRequest['verb'], value?: number, ifVersion?: string, held?: RegExp): CallAnswer | undefined {
    const answer = this.ask(verb, value, ifVersion)
    this.run(held)
    return answer()
  }
}
const valueIn = (answer: CallAnswer | undefined): unknown => (answer && 'entry' in answer ? answer.entry?.value : undefined)
const versionIn = (answer: CallAnswer | undefined): string => (answer && 'entry' in answer && answer.entry?.version) || ''

describe('the model of JunoDB', () => {
  it('answers the verbs as a store does, one after the other', () => {
    const bench = new Bench()
    expect(bench.do('get')).toMatchObject({ type: 'read' })
    expect(bench.do('update', 1)?.type).toBe('missing')
    const made = bench.do('create', 2)
    expect(made).toMatchObject({ type: 'applied', entry: { value: 2 } })
    expect(bench.do('create', 3)).toMatchObject({ type: 'exists', entry: { value: 2 } })
    expect(bench.do('update', 4, versionIn(made))).toMatchObject({ type: 'applied', entry: { value: 4 } })
    expect(bench.do('update', 5, versionIn(made))).toMatchObject({ type: 'version', entry: { value: 4 } })
    expect(bench.do('set', 6)).toMatchObject({ type: 'applied', entry: { value: 6 } })
    expect(valueIn(bench.do('get'))).toBe(6)
    expect(bench.do('destroy')?.type).toBe('applied')
    expect(valueIn(bench.do('get'))).toBe(undefined)
  })

  it('refuses a write of a locked key, and the next one passes', () => {
    const bench = new Bench()
    const first = bench.ask('set', 1)
    bench.run(/ commit /)
    const second = bench.ask('set', 2)
    bench.run(/ commit /)
    expect(second()).toMatchObject({ type: 'no-effect', why: 'record locked' })
    bench.run()
    expect(first()?.type).toBe('applied')
    expect(bench.do('set', 3)?.type).toBe('applied')
  })

  it('brings a destroyed record back by a repair that was under way (A11)', () => {
    const bench = new Bench()
    bench.do('set', 1)
    // Its commit is at s1 already, and slow on its way to s0: a read finds the two apart.
    const slow = bench.ask('set', 2)
    bench.run(/ s0 commit /)
    const read = bench.do('get', undefined, undefined, / s0 commit | repair /)
    expect(valueIn(read)).toBe(2)
    bench.run(/ repair /)
    expect(slow()?.type).toBe('applied')
    expect(bench.do('destroy', undefined, undefined, / repair /)?.type).toBe('applied')
    bench.run()
    expect(valueIn(bench.do('get'))).toBe(2)
  })

  it('acknowledges a destroy that has no effect on a set beside it (A12)', () => {
    const bench = new Bench()
    const made = bench.do('set', 1)
    // The set has s0; the destroy has s1, and s2 where there is nothing.
    const set = bench.ask('set', 2)
    const destroy = bench.ask('destroy')
    bench.run(/p s1 prepare r2/)
    expect(destroy()?.type).toBe('applied')
    bench.run()
    const [, createdAt] = versionIn(made).split(' ')
    expect(versionIn(set()).split(' ').slice(0, 2)).toEqual(['2', createdAt])
  })
})

/** @returns of `histories` seeds, how many the checker explains neither with versions nor by values alone */
function judged(histories: number, knobs: PeerKnobs): { strict: number; relaxed: number; locked: number; operations: number } {
  const counts = { strict: 0, relaxed: 0, locked: 0, operations: 0 }
  for (let seed = 1; seed <= histories; seed++) {
    const operations = operationsOf(playPeer(junodb, seed, knobs))
    counts.operations += operations.length
    counts.locked += operations.filter(({ answer }) => answer.type === 'no-effect').length
    const verdicts = [true, false].map((isStrict) => check(operations, { boundMs: 1, startsAt: wallStart, isStrict }).type)
    if (verdicts[0] === 'violation') counts.strict++
    if (verdicts[1] === 'violation') counts.relaxed++
    expect(verdicts, `seed ${seed}`).not.toContain('undecided')
  }
  return counts
}

describe('the checker, of a model of JunoDB without a fault', () => {
  it('finds a third of the histories of a hot key wrong, a quarter by their values alone', () => {
    expect(judged(300, hotKey)).toEqual({ strict: 108, relaxed: 79, locked: 1838, operations: 30_000 })
  })

  it('finds one in fifteen of a cool key wrong', () => {
    expect(judged(300, coolKey)).toEqual({ strict: 20, relaxed: 12, locked: 392, operations: 30_000 })
  })

  it('finds more wrong with five zones', () => {
    expect(judged(100, { ...hotKey, zones: 5 }).strict).toBeGreaterThan(judged(100, hotKey).strict)
  })

  it('finds nothing wrong where keys are only created and read: the pattern that JunoDB does well', () => {
    expect(judged(100, { ...hotKey, verbs: ['create', 'get', 'get'] })).toMatchObject({ strict: 0, relaxed: 0 })
  })

  it('gets the same history for the same seed', () => {
    expect(playPeer(junodb, 7)).toEqual(playPeer(junodb, 7))
    expect(playPeer(junodb, 7)).not.toEqual(playPeer(junodb, 8))
  })
})
