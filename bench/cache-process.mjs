/**
 * One of the processes of the stampede: at an instant that all are told, so many readers ask one cold key through one library.
 * Invariant: how often the loader ran is not counted here but by INCR on a key of its own in Redis, over a connection that no library has.
 * Why processes and not instances in one: what a library joins in memory it could then join by accident.
 */
import { fork } from 'node:child_process'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const self = fileURLToPath(import.meta.url)
/** Later than any message between processes takes. */
const startsAfterMs = 30

/** Starts `count` processes on the Redis at `port`. @returns `stampede(order)`, which gives what each process saw, and `close`. */
export async function cacheProcesses({ count, port }) {
  const children = Array.from({ length: count }, () => fork(self, [], { execArgv: [] }))
  const kill = () => children.forEach((child) => child.kill('SIGKILL'))
  process.once('exit', kill)
  const tell = (child, message) =>
    new Promise((resolve, reject) => {
      const gone = () => reject(new Error('a process of the stampede has ended'))
      child.once('exit', gone)
      child.once('message', ({ error, result }) => {
        child.off('exit', gone)
        if (error === undefined) resolve(result)
        else reject(new Error(error))
      })
      child.send(message)
    })
  const all = (message) => Promise.all(children.map((child) => tell(child, message)))
  await all({ type: 'open', port })
  return {
    /** A library connects on its first call, which is not what is measured. */
    prepare: (name) => all({ type: 'prepare', name }),
    stampede: (order) => all({ type: 'stampede', at: Date.now() + startsAfterMs, ...order }),
    async close() {
      await all({ type: 'close' })
      const ended = children.map((child) => new Promise((resolve) => child.once('exit', resolve)))
      for (const child of children) child.disconnect()
      await Promise.all(ended)
      process.off('exit', kill)
    },
  }
}

let port
let counter
let byName
const opened = new Map()
let loadMs = 0

/** What the counter of a key is called, for the loader and for who reads it. */
export const loadsOf = (key) => `loads of ${key}`
export const answerOf = (key) => ({ id: key, text: 'x'.repeat(200) })

async function load(key) {
  await counter.incr(loadsOf(key))
  await pause(loadMs)
  return answerOf(key)
}

const commands = {
  async open(message) {
    port = message.port
    const { Redis } = await import('ioredis')
    const { peers } = await import('./cache-peers.mjs')
    counter = new Redis({ host: '127.0.0.1', port })
    byName = new Map(peers.map((peer) => [peer.name, peer]))
  },
  async prepare({ name }) {
    const { shared, memory } = byName.get(name)
    const cache = shared === undefined ? memory(load) : await shared(load, { port })
    opened.set(name, cache)
    await cache.get(`warm ${name} ${process.pid}`)
  },
  async stampede({ name, key, readers, at, loadMs: takes }) {
    loadMs = takes
    const cache = opened.get(name)
    await pause(at - Date.now())
    const start = performance.now()
    const results = await Promise.allSettled(Array.from({ length: readers }, () => cache.get(key)))
    const tookMs = performance.now() - start
    const right = results.filter(({ value }) => value?.id === key).length
    const threw = results.filter(({ status }) => status === 'rejected').length
    return {
      tookMs,
      right,
      threw,
      wrong: readers - right - threw,
      why: results.find(({ reason }) => reason !== undefined)?.reason?.message,
    }
  },
  async close() {
    for (const cache of opened.values()) await cache.close?.()
    counter.disconnect()
  },
}

if (process.argv[1] === self) {
  process.on('message', ({ type, ...command }) => {
    commands[type](command).then(
      (result) => process.send({ result }),
      (error) => process.send({ error: error.stack }),
    )
  })
  /** The benchmark has gone, or wants us to go. */
  process.once('disconnect', () => process.exit(0))
}
