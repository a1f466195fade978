/** The model of two-phase commit: what the checker says of it, and what becomes of a key whose proxy died. */
import { describe, expect, it } from 'vitest'
import { operationsOf, type CallAnswer } from '../history.ts'
import { check } from '../linearizable.ts'
import { wallStart } from '../clock.ts'
import type { Peer } from './peer.ts'
import { hotKey, playPeer, unevenKey, type PeerKnobs } from './play.ts'
import { twoPhaseCommit, twoPhaseCommitLockedReads, type TwoPhaseMessage } from './two-phase-commit.ts'

function judged(peer: Peer<TwoPhaseMessage>, histories: number, knobs: PeerKnobs) {
  const counts = { wrong: 0, refused: 0, operations: 0 }
  for (let seed = 1; seed <= histories; seed++) {
    const operations = operationsOf(playPeer(peer, seed, knobs))
    counts.operations += operations.length
    counts.refused += operations.filter(({ answer }) => answer.type === 'no-effect').length
    const { type } = check(operations, { boundMs: 1, startsAt: wallStart })
    if (type === 'violation') counts.wrong++
    expect(type, `seed ${seed}`).not.toBe('undecided')
  }
  return counts
}

describe('a model of two-phase commit', () => {
  it('is wrong in one history of sixteen when messages are late now and then: a read shows the new value, the next one the old', () => {
    expect(judged(twoPhaseCommit, 300, unevenKey)).toEqual({ wrong: 18, refused: 6_981, operations: 30_000 })
  })

  it('hides it on an even network, and refuses one request in six as locked', () => {
    expect(judged(twoPhaseCommit, 300, hotKey)).toEqual({ wrong: 0, refused: 4_823, operations: 30_000 })
  })

  it('is right when reads respect locks, and then refuses a third of the requests', () => {
    expect(judged(twoPhaseCommitLockedReads, 300, unevenKey)).toEqual({ wrong: 0, refused: 9_938, operations: 30_000 })
  })

  it('gets the same history for the same seed', () => {
    expect(playPeer(twoPhaseCommit, 7)).toEqual(playPeer(twoPhaseCommit, 7))
    expect(playPeer(twoPhaseCommit, 7)).not.toEqual(playPeer(twoPhaseCommit, 8))
  })

  it('has a key that nobody can write again when a proxy dies between its phases', () => {
    const names = ['s0', 's1', 's2']
    const waiting: (() => void)[] = []
    const members = new Map<string, { receive(from: string, message: TwoPhaseMessage, now: number): void }>()
    const dead = new Set<string>()
    const ports = (name: string) => ({
      send: (to: string, message: TwoPhaseMessage) => void waiting.push(() => dead.has(to) || members.get(to)?.receive(name, message, 1)),
      after: () => undefined,
    })
    for (const name of names) members.set(name, twoPhaseCommitLockedReads.server(ports(name)))
    const [first, second] = ['p0', 'p1'].map((name) => {
      const proxy = twoPhaseCommitLockedReads.proxy(ports(name), names)
      members.set(name, proxy)
      return proxy
    })
    const answers: CallAnswer[] = []
    const ask = (proxy: typeof first, requestId: string, verb: 'get' | 'set'): void =>
      proxy?.request({ verb, value: requestId, ifVersion: undefined, requestId }, 1, (answer) => answers.push(answer))
    const run = (): void => {
      for (let next = waiting.shift(); next; next = waiting.shift()) next()
    }
    ask(first, 'a', 'set')
    run()
    ask(first, 'b', 'set')
    dead.add('p0')
    run()
    for (let turn = 0; turn < 5; turn++) {
      ask(second, `c${turn}`, 'set')
      ask(second, `d${turn}`, 'get')
      run()
    }
    expect(answers.map(({ type }) => type)).toEqual(['applied', ...Array.from({ length: 10 }, () => 'no-effect')])
  })
})
