/**
 * One process of a fleet that counts on one key, or that holds a million keys, as the benchmark tells it.
 * Invariant: it answers each command once, in order. It keeps the sum of all numbers that it was given: over all processes they must be
 * 1, 2, 3 ... without a gap and without one twice, and a sum shows both.
 */
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import { generator, hapax, slice } from './harness.mjs'

const self = fileURLToPath(import.meta.url)
/** Each process is ended with the benchmark; Node takes more than ten listeners for a leak. */
process.setMaxListeners(64)

/** @returns a function that tells a new process a command and gives its answer, with `close()`. */
export function counterProcess() {
  const child = fork(self, [], { execArgv: ['--expose-gc'] })
  const kill = () => child.kill('SIGKILL')
  process.once('exit', kill)
  const waiting = []
  child.on('message', ({ error, result }) => {
    const { resolve, reject } = waiting.shift()
    return error === undefined ? resolve(result) : reject(new Error(error))
  })
  const gone = new Promise((resolve) => child.once('exit', resolve))
  void gone.then(() => {
    process.off('exit', kill)
    for (const { reject } of waiting.splice(0)) reject(new Error('its process has ended'))
  })
  const tell = (type, command = {}) =>
    new Promise((resolve, reject) => {
      waiting.push({ resolve, reject })
      child.send({ type, ...command })
    })
  tell.close = async () => {
    if (child.connected) child.disconnect()
    await gone
  }
  return tell
}

const key = 'hot'
/** How often a call meets a fault: enough that each kind happens hundreds of times in a run. */
const rates = { unknownBeforeApply: 0.05, unknownAfterApply: 0.1, unknownApplyLater: 0.05, unavailable: 0.02 }
const delay = { chance: 0.05, duration: 3 }
const attemptsMax = 1_000
const callsATurn = 16

let adders

async function adding({ port, random }) {
  const { counter } = await hapax('patterns/counters/index.js')
  const { redisKv } = await hapax('core/stores/redis.js')
  const { faulty } = await hapax('core/testing/index.js')
  const clientOf = (more) => new Redis({ host: '127.0.0.1', port, ...more })
  const [plain, piped] = [clientOf({}), clientOf({ enableAutoPipelining: true })]
  const hapaxOn = (client, name) => {
    const hits = counter({ kv: redisKv(client), name })
    return async () => (await hits.add(key, 1)).value
  }
  /** 4,096 requests are remembered: more than one key gets here. */
  const flaky = faulty(redisKv(piped), { ...rates, delay, seed: Math.floor(random() * 2 ** 31) })
  const safe = counter({ kv: flaky, name: 'safe', remember: '10m', requestsMax: 4_096 })
  /** As `faulty` does it to a store: late, not sent, or sent and the answer lost. */
  const lost = { unknownAfter: 0, unknownLater: 0 }
  const incr = async () => {
    const drawn = random()
    if (drawn < delay.chance) await new Promise((resolve) => setTimeout(resolve, delay.duration))
    if (drawn > 1 - rates.unknownBeforeApply - rates.unavailable) throw new Error('not sent')
    const value = await piped.incr('incr-safe')
    if (random() >= rates.unknownAfterApply + rates.unknownApplyLater) return value
    lost.unknownAfter += 1
    throw new Error('lost')
  }
  return {
    'hapax counter': hapaxOn(plain, 'plain'),
    'hapax counter, autopipelining': hapaxOn(piped, 'piped'),
    INCR: () => plain.incr('incr'),
    'INCR, autopipelining': () => piped.incr('incr-piped'),
    faulty: { 'hapax counter': async (requestId) => (await safe.add(key, 1, { requestId })).value, INCR: incr },
    faults: { 'hapax counter': () => flaky.counts(), INCR: () => lost },
    close: () => [plain, piped].forEach((client) => client.disconnect()),
  }
}

/** An honest caller repeats until it has an answer, under the same id. */
async function insisting(add, requestId) {
  for (let attempt = 1; attempt <= attemptsMax; attempt += 1) {
    try {
      await add(requestId)
      return attempt
    } catch (error) {
      if (error.retry === 'never') throw error
    }
  }
  throw new Error(`no answer after ${attemptsMax} attempts`)
}

const bytes = () => {
  /** Twice: what the first pass frees may hold more. */
  globalThis.gc()
  globalThis.gc()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

let held

/** One after the other, with turns of the event loop between them, as in a server. */
async function calling(count, keyOf) {
  for (let number = 0; number < count; number += 1) {
    await held.take(keyOf(number))
    if (number % callsATurn === 0) await new Promise((resolve) => setImmediate(resolve))
  }
}

const commands = {
  async open({ port, seed }) {
    adders = await adding({ port, random: generator(seed) })
  },
  async slice({ name, inFlight, ms }) {
    const add = adders[name]
    let [last, sum] = [0, 0]
    const op = async () => {
      const value = await add()
      sum += value
      const rises = value > last
      last = value
      return rises
    }
    return { ...(await slice({ op, inFlight, ms })), sum }
  },
  async insist({ name, count, inFlight }) {
    let [begun, attempts] = [0, 0]
    const caller = async () => {
      while (begun < count) {
        begun += 1
        const tried = await insisting(adders.faulty[name], `${process.pid}-${begun}`)
        attempts += tried
      }
    }
    await Promise.all(Array.from({ length: inFlight }, caller))
    const { unknownAfter, unknownLater } = adders.faults[name]()
    return { attempts, unknownAfter, unknownLater }
  },
  async fill({ name, keys, ttlMs }) {
    const { bytesInMemory } = await import('./bytes-peers.mjs')
    held = await bytesInMemory.find((peer) => peer.name === name).open(ttlMs)
    await held.take('warm')
    const before = bytes()
    held.before = before
    await calling(keys, (number) => `client-${number}`)
    return bytes() - before
  },
  held: () => bytes() - held.before,
  async again({ keys }) {
    await calling(keys, (number) => `again-${number}`)
    return bytes() - held.before
  },
}

if (process.argv[1] === self) {
  process.on('message', ({ type, ...command }) => {
    new Promise((resolve) => resolve(commands[type](command))).then(
      (result) => process.send({ result }),
      (error) => process.send({ error: error.stack }),
    )
  })
  /** The benchmark has gone, or wants us to go. */
  process.once('disconnect', () => process.exit(0))
}
