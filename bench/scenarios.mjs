/**
 * What goes wrong with repeated requests, as scripts that every library is put through in the same way.
 * Invariant: an answer names the request that it was made for, so one that reaches another request, or changes, is seen.
 * Counted a key: `executedTwice`, the handler's effect happened more than once; `wrongReplay`, an answer that is another request's or not
 * the first one's; `unanswered`, the last honest repetition got no answer: safe, but a person has to look.
 */
import { setTimeout as pause } from 'node:timers/promises'

const leaseMs = 200
/** Longer than any script: a machine that stalls must not look like a library that forgets. */
const retentionMs = 600_000
/** More than three leases, and a whole second: what all of the libraries can count. */
const retentionMsShort = 1_000

/** One key's story: makes requests, counts effects, judges answers. */
class Story {
  #effects = new Map()
  #first = new Map()
  #made = 0
  wrongReplay = 0
  unanswered = 0

  constructor(peer, key) {
    this.peer = peer
    this.store = peer.store()
    this.request = { tenant: 'tenant-a', path: '/payments', key, body: { amount: 100, currency: 'EUR' } }
  }

  process(times = { leaseMs, retentionMs }) {
    return this.peer.process(this.store, times)
  }

  /** A handler charges, does `then`, and answers. */
  async ask(process, { then = async () => {}, isLast = false, ...changes } = {}) {
    const request = { ...this.request, ...changes }
    const identity = JSON.stringify(request)
    const result = await process.attempt(request, async () => {
      this.#effects.set(identity, (this.#effects.get(identity) ?? 0) + 1)
      this.#made += 1
      const charge = this.#made
      await then()
      return { identity, charge }
    })
    if (result.type === 'answered') this.#judge(identity, result.value)
    else if (isLast) this.unanswered = 1
    return result
  }

  #judge(identity, value) {
    const first = this.#first.get(identity)
    if (value?.identity !== identity || (first !== undefined && first !== value.charge)) this.wrongReplay += 1
    else this.#first.set(identity, value.charge)
  }

  /** After its retention a key begins anew. */
  forget() {
    this.#effects.clear()
    this.#first.clear()
  }

  result() {
    return {
      executedTwice: [...this.#effects.values()].filter((count) => count > 1).length,
      wrongReplay: this.wrongReplay,
      unanswered: this.unanswered,
    }
  }
}

const soon = () => pause(5)
const never = () => new Promise(() => {})

/** A gate that a script opens. */
function gate() {
  let open
  const opened = new Promise((resolve) => (open = resolve))
  return { open, opened }
}

export const scenarios = {
  'four equal requests at once': async (story) => {
    const process = story.process()
    await Promise.all([1, 2, 3, 4].map(() => story.ask(process, { then: soon })))
    await story.ask(process, { isLast: true })
  },
  'again after the answer': async (story) => {
    const process = story.process()
    await story.ask(process)
    await story.ask(process)
    await story.ask(story.process(), { isLast: true })
  },
  'another tenant, same key': async (story) => {
    const process = story.process()
    await story.ask(process)
    await story.ask(process, { tenant: 'tenant-b', isLast: true })
  },
  'another amount, same key': async (story) => {
    const process = story.process()
    await story.ask(process)
    await story.ask(process, { body: { amount: 999, currency: 'EUR' } })
  },
  'another path, same key': async (story) => {
    const process = story.process()
    await story.ask(process)
    await story.ask(process, { path: '/refunds' })
  },
  'the first takes longer than its lease': async (story) => {
    const process = story.process()
    const first = story.ask(process, { then: () => pause(leaseMs * 2.5) })
    await pause(leaseMs * 1.5)
    await story.ask(process)
    await first
    await story.ask(process, { isLast: true })
  },
  'the first process stalls beyond its lease and ends late': async (story) => {
    const [stalled, other] = [story.process(), story.process()]
    const late = gate()
    const first = story.ask(stalled, { then: () => late.opened })
    await soon()
    stalled.freeze()
    await pause(leaseMs * 1.5)
    await story.ask(other)
    late.open()
    await first
    await story.ask(other, { isLast: true })
  },
  'the first process stalls beyond its lease and fails late': async (story) => {
    const [stalled, other] = [story.process(), story.process()]
    const late = gate()
    const first = story.ask(stalled, {
      then: async () => {
        await late.opened
        throw new Error('too late')
      },
    })
    await soon()
    stalled.freeze()
    await pause(leaseMs * 1.5)
    await story.ask(other)
    late.open()
    await first
    await story.ask(other, { isLast: true })
  },
  'the process is killed after the charge': async (story) => {
    const killed = story.process()
    void story.ask(killed, { then: never })
    await soon()
    killed.freeze()
    await pause(leaseMs * 1.5)
    await story.ask(story.process())
    await story.ask(story.process(), { isLast: true })
  },
  'the handler fails after the charge': async (story) => {
    const process = story.process()
    const then = async () => {
      throw new Error('after the charge')
    }
    await story.ask(process, { then })
    await story.ask(process, { isLast: true })
  },
  'two at once when the retention has passed': async (story) => {
    const process = story.process({ leaseMs, retentionMs: retentionMsShort })
    await story.ask(process)
    await pause(retentionMsShort * 2.1)
    story.forget()
    await Promise.all([story.ask(process, { then: soon }), story.ask(process, { then: soon })])
  },
}

/** Puts a library through all scripts, `keys` keys each, side by side. @returns rows, one a script. */
export async function judge(peer, keys) {
  const rows = await Promise.all(
    Object.entries(scenarios).map(async ([title, script]) => {
      const stories = Array.from({ length: keys }, (_, index) => new Story(peer, `key-${index}`))
      await Promise.all(stories.map((story) => script(story)))
      const results = stories.map((story) => story.result())
      const sum = (column) => results.reduce((total, result) => total + result[column], 0)
      return { title, keys, executedTwice: sum('executedTwice'), wrongReplay: sum('wrongReplay'), unanswered: sum('unanswered') }
    }),
  )
  return rows
}
