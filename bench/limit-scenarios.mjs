/**
 * What goes wrong with limits, as scripts that every library is put through in the same way.
 * Invariant: a script only asks and writes down; limit-promises.mjs judges, by what the library's own documents promise.
 * `needs`: without it a library cannot take part ('-' in the table). `outage`: a store of its own that becomes slow or dies.
 */
import { setImmediate, setTimeout as pause } from 'node:timers/promises'
import { judged, most } from './limit-promises.mjs'

/** Longer than any script. */
const long = 600_000
/** What the slow store is given, and what it takes. */
const timeoutMs = 100
const delayMs = 400

/** One key's story. */
class Story {
  requests = []
  unseen = 0
  /** While the store is down: answers that came sooner than it could have given them were nobody's. */
  storeTakesMs = 0

  constructor({ peer, open, key, outage }) {
    Object.assign(this, { peer, key, outage, openNamed: open })
  }

  /** `isOwn`: as another process would, with a client of its own. */
  open(policies, isOwn = false) {
    this.policies = policies
    return this.openNamed(policies, isOwn)
  }

  async #note(cost, call) {
    const from = Date.now()
    const answer = await call()
    const to = Date.now()
    let outcome = answer.outcome
    if (outcome === 'allowed' && to - from < this.storeTakesMs) outcome = 'unseen'
    if (outcome === 'unseen') this.unseen += 1
    const request = { from, to, cost, outcome, refund: answer.refund }
    this.requests.push(request)
    return request
  }

  ask(limiter, cost = 1) {
    return this.#note(cost, async () => ({ outcome: await limiter.take(this.key, cost === 1 ? undefined : cost) }))
  }

  charge(limiter, cost) {
    return this.#note(cost, () => limiter.charge(this.key, cost))
  }

  /** Each in a turn of its own, as a server hands over requests; none waits for another's answer. */
  async times(count, limiter) {
    const asked = []
    for (let time = 0; time < count; time += 1) {
      asked.push(this.ask(limiter))
      await setImmediate()
    }
    await Promise.all(asked)
  }

  result() {
    const { promise } = this.peer
    const [policy] = this.policies
    const of = (outcome) => this.requests.filter((request) => request.outcome === outcome)
    return {
      ...(this.judge?.() ?? judged(this.requests, promise, policy)),
      unseen: this.unseen,
      most: most(this.requests, policy.perMs / 2, policy.limit),
      asked: this.requests.length,
      allowed: of('allowed').length + of('unseen').length,
      unknown: of('unknown').length + of('threw').length,
    }
  }
}

/** A second of the calendar begins: windows of the calendar and those that begin with a request are then in step. */
const aSecondBegins = () => pause(1_030 - (Date.now() % 1_000))

export const scenarios = {
  'ten times the limit at once': {
    needs: [],
    async run(story) {
      await story.times(100, await story.open([{ limit: 10, perMs: long }]))
    },
  },
  'around the end of a window': {
    needs: [],
    async run(story) {
      const limiter = await story.open([{ limit: 10, perMs: 1_000 }])
      await aSecondBegins()
      await story.ask(limiter)
      await pause(820)
      await story.times(9, limiter)
      await pause(300)
      await story.times(10, limiter)
    },
  },
  'two instances, one store': {
    needs: ['shared'],
    async run(story) {
      const policies = [{ limit: 10, perMs: long }]
      const both = [await story.open(policies, true), await story.open(policies, true)]
      await Promise.all(both.map((limiter) => story.times(50, limiter)))
    },
  },
  'the store is slower than the time-out': {
    needs: ['outage'],
    async run(story) {
      const limiter = await story.open([{ limit: 5, perMs: long }])
      await story.times(5, limiter)
      story.outage.slow(delayMs)
      story.storeTakesMs = delayMs
      await story.times(10, limiter)
      story.outage.slow(0)
      story.storeTakesMs = 0
      /** What was under way arrives. */
      await pause(2 * delayMs)
      await story.times(5, limiter)
    },
  },
  'the store is slow, and there is room': {
    needs: ['outage'],
    async run(story) {
      const limiter = await story.open([{ limit: 100, perMs: long }])
      await story.times(5, limiter)
      story.outage.slow(delayMs)
      story.storeTakesMs = delayMs
      await story.times(10, limiter)
      story.outage.slow(0)
      story.storeTakesMs = 0
      await pause(2 * delayMs)
      await story.times(100, limiter)
    },
  },
  'the store dies': {
    needs: ['outage'],
    async run(story) {
      const limiter = await story.open([{ limit: 5, perMs: long }])
      await story.times(5, limiter)
      await story.outage.die()
      story.storeTakesMs = Infinity
      await story.times(10, limiter)
    },
  },
  /** Refused by the first policy, so the second may not be used up. Both as one limiter: judged by what was served. */
  'two policies, one refuses': {
    needs: ['policies'],
    async run(story) {
      const limiter = await story.open([
        { limit: 1, perMs: 1_000 },
        { limit: 4, perMs: long },
      ])
      await aSecondBegins()
      for (let round = 0; round < 3; round += 1) {
        await story.times(round === 0 ? 5 : 1, limiter)
        await pause(1_100)
      }
      story.judge = () => {
        const { promise } = story.peer
        return judged(story.requests, { ...promise, refusedCount: false }, story.policies[0])
      }
    },
  },
  /** The three were taken in a window that is over, the one before included: giving them back must not make this one larger. One within its window must. */
  'a refund after its window': {
    needs: ['refund'],
    async run(story) {
      const limiter = await story.open([{ limit: 5, perMs: 1_000 }])
      await aSecondBegins()
      const late = await story.charge(limiter, 3)
      await pause(2_150)
      await story.ask(limiter)
      const soon = await story.charge(limiter, 1)
      await late.refund()
      await soon.refund()
      soon.refunded = 1
      await story.times(12, limiter)
    },
  },
  'a window of half a second': {
    needs: [],
    async run(story) {
      const limiter = await story.open([{ limit: 5, perMs: 500 }])
      await aSecondBegins()
      for (let round = 0; round < 3; round += 1) {
        await story.times(round === 0 ? 7 : 5, limiter)
        await pause(1_000)
      }
    },
  },
  'costs 8, 5, 2 and 1 of 10': {
    needs: ['cost'],
    async run(story) {
      const limiter = await story.open([{ limit: 10, perMs: long }])
      for (const cost of [8, 5, 2, 1]) await story.ask(limiter, cost)
    },
  },
}

export const columns = ['overAdmitted', 'wrongRefusals', 'refusedWithRoom', 'unseen', 'unknown']

let stories = 0

/**
 * Puts a library through all scripts, `keys` keys each, side by side.
 * @param world open(peer, { policies, name, timeoutMs, outage, isOwn }) makes a limiter; outage() a store of its own with slow(ms), die() and close(),
 * or absent, when the library has no store.
 * @returns rows, one a script; `cannot` where it cannot take part
 */
export async function judge(peer, keys, world) {
  return Promise.all(
    Object.entries(scenarios).map(async ([title, { needs, run }]) => {
      const has = (need) => (need === 'outage' ? world.outage !== undefined : peer.can.includes(need))
      if (!needs.every(has)) return { title, keys: 0, cannot: true }
      const results = await Promise.all(
        Array.from({ length: keys }, async (_, index) => {
          const name = `s${(stories += 1)}`
          const outage = needs.includes('outage') ? await world.outage() : undefined
          const limiters = []
          const open = async (policies, isOwn) => {
            const limiter = await world.open(peer, {
              isOwn,
              policies,
              name,
              timeoutMs: outage === undefined ? 5_000 : timeoutMs,
              outage,
            })
            limiters.push(limiter)
            return limiter
          }
          const story = new Story({ peer, open, key: `key-${index}`, outage })
          try {
            await run(story)
            return story.result()
          } finally {
            for (const limiter of limiters) limiter.close?.()
            await outage?.close()
          }
        }),
      )
      const total = (column) => results.reduce((sum, result) => sum + result[column], 0)
      return {
        title,
        keys,
        ...Object.fromEntries([...columns, 'asked', 'allowed'].map((column) => [column, total(column)])),
        most: Math.max(...results.map((result) => result.most)),
      }
    }),
  )
}
