/**
 * What goes wrong between a loader and an invalidation, and what becomes of an answer `undefined`: the same scripts for every library.
 * Invariant: a read that begins after an invalidation has been answered, and gives what was there before it, is stale and is counted.
 * Why delays in turns of the event loop: they are as random as the seed, and a busy machine does not change which of two comes first.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { generator } from './harness.mjs'

const turn = () => new Promise((resolve) => setImmediate(resolve))
async function turns(count) {
  for (let left = count; left > 0; left -= 1) await turn()
}

const storiesAtOnce = 200
const loaderTurnsMax = 6
const betweenTurnsMax = 8
const storeTurnsMax = 2

/**
 * `count` stories, each with a key of its own: a reader's loader reads the old value, the value changes, the invalidation is answered, somebody
 * reads at once, the loader ends, somebody reads again. All delays are drawn from `seed`; half of the loaders are held until the invalidation
 * has been answered, however far the store is. `name` stands in the keys: libraries share one Redis, and some of them a prefix.
 * `open(load, { delay })` gives `[reader, invalidator]`: one cache twice, or two processes' caches on one store. With `settleMs` every key is read
 * once more when that time has passed: what is stale then stays so until its time to live is over.
 */
export async function staleReads(name, open, { count, seed, settleMs }) {
  const random = generator(seed)
  const draw = (max) => Math.floor(random() * (max + 1))
  const values = new Map()
  const loading = new Set()
  const seen = { raced: 0, staleAtOnce: 0, staleAfter: 0, unanswered: 0 }
  const hasRead = new Map()
  const mayEnd = new Map()
  const load = async (key) => {
    await turns(draw(loaderTurnsMax))
    const value = values.get(key)
    if (value === 'old') {
      loading.add(key)
      hasRead.get(key)()
      await mayEnd.get(key)
    }
    await turns(draw(loaderTurnsMax))
    loading.delete(key)
    return value
  }
  const [reader, invalidator] = await open(load, { delay: () => turns(draw(storeTurnsMax)) })
  const ask = async (key) => {
    try {
      return await reader.get(key)
    } catch {
      seen.unanswered += 1
      return undefined
    }
  }
  async function story(key) {
    values.set(key, 'old')
    const isHeld = draw(1) === 1
    let end = () => {}
    if (isHeld) mayEnd.set(key, new Promise((resolve) => (end = resolve)))
    const read = new Promise((resolve) => hasRead.set(key, resolve))
    const first = ask(key)
    if (isHeld || draw(1) === 1) await Promise.race([read, first])
    await turns(draw(betweenTurnsMax))
    values.set(key, 'new')
    await invalidator.invalidate(key)
    if (loading.has(key)) seen.raced += 1
    const atOnce = ask(key)
    await turns(draw(storeTurnsMax))
    end()
    if ((await atOnce) === 'old') seen.staleAtOnce += 1
    await first
    await turns(draw(storeTurnsMax))
    if ((await ask(key)) === 'old') seen.staleAfter += 1
  }
  let next = 0
  const teller = async () => {
    for (let number = next++; number < count; number = next++) await story(`${name} ${number}`)
  }
  await Promise.all(Array.from({ length: storiesAtOnce }, teller))
  if (settleMs !== undefined) {
    await pause(settleMs)
    seen.staleForLong = 0
    for (const key of values.keys()) if ((await ask(key)) === 'old') seen.staleForLong += 1
  }
  for (const cache of new Set([reader, invalidator])) await cache.close?.()
  return { invalidations: count, ...seen, staleReads: seen.staleAtOnce + seen.staleAfter }
}

/** What three reads of a key give whose loader answers undefined, and how often it ran. */
export async function undefinedAnswer({ memory }) {
  let loads = 0
  const cache = await memory(async () => {
    loads += 1
    return undefined
  }, {})
  const show = (value) => (typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value))
  const answers = new Set()
  for (let reads = 0; reads < 3; reads += 1) {
    answers.add(await Promise.resolve(cache.get('nobody')).then(show, (error) => `throws ${error.message}`))
    await turns(2)
  }
  await cache.close?.()
  return { answer: [...answers].join(', then '), loads }
}
