/**
 * One store in a process of its own, which does what the benchmark tells it: fill, one slice, serve a route, write beside it, close.
 * Invariant: it answers each command once, in order. Why a process each: RocksDB and LMDB go on working behind a slice, and every store has
 * objects that the garbage collector walks; in one process one contender's work would be charged to the next.
 */
import { fork } from 'node:child_process'
import { createServer } from 'node:http'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { generator, slice } from './harness.mjs'

const self = fileURLToPath(import.meta.url)
const keysAWorker = 16
const workersMax = 128
const fillAtOnce = 500
/** Each contender is ended with the benchmark; Node takes more than ten listeners for a leak. */
process.setMaxListeners(64)

/** @returns a handle on a new process with that store, or why there is none: `{ missing }`. */
export async function contender({ open, server, ...rest }) {
  const child = fork(self, [], { execArgv: ['--expose-gc'] })
  const kill = () => child.kill('SIGKILL')
  process.once('exit', kill)
  let [answer, isGone] = [undefined, false]
  child.on('message', (message) => answer?.(message))
  child.once('exit', () => {
    isGone = true
    process.off('exit', kill)
    answer?.({ error: 'its process has ended' })
  })
  const tell = (command) =>
    new Promise((resolve, reject) => {
      if (isGone) return reject(new Error('its process has ended'))
      answer = ({ error, result }) => (error === undefined ? resolve(result) : reject(new Error(error)))
      return child.send(command)
    })
  const { name, kind, missing } = await tell({ type: 'open', open, port: server?.port, ...rest })
  const close = async () => {
    const ended = new Promise((resolve) => child.once('exit', resolve))
    await tell({ type: 'close' }).catch(() => {})
    if (!isGone) child.disconnect()
    await ended
  }
  if (missing !== undefined) {
    await close()
    return { missing }
  }
  return {
    name,
    kind,
    server,
    tell,
    close,
    /** A slice, with the CPU time that the server took for it. */
    async slice(operation, settings) {
      const before = server?.serverCpu() ?? 0
      const one = await tell({ type: 'slice', operation, ...settings })
      if (server !== undefined) one.serverCpuUsPerOp = (server.serverCpu() - before) / one.opsInAll
      return one
    },
  }
}

/** Each worker has keys of its own: a refused version is then a fault and not a race. */
const ownKeys = Array.from(
  { length: workersMax * keysAWorker },
  (_, index) => `u:${Math.floor(index / keysAWorker)}:${index % keysAWorker}`,
)
const manyKey = (index) => `m:${index}`

let store
let random
let manyKeys
let number = 0
let unique
let server
let stopWriting

const ownKey = (worker) => ownKeys[worker * keysAWorker + Math.floor(random() * keysAWorker)]
const operations = {
  create: () => store.create(`c:${unique}:${(number += 1)}`, number),
  update: (worker) => store.update(ownKey(worker), (number += 1)),
  updateIf: (worker) => store.updateIf(ownKey(worker), (number += 1)),
  get: (worker) => store.get(ownKey(worker)),
  getMany: () => store.get(manyKey(Math.floor(random() * manyKeys))),
}

/** Creates at a fixed rate until told to stop, in step with the clock whatever the store does. */
function writing(rate) {
  const start = performance.now()
  const pending = new Set()
  let [sent, wrong] = [0, 0]
  const timer = setInterval(() => {
    for (; start + (sent * 1000) / rate <= performance.now(); sent += 1) {
      const write = operations.create().then(
        (right) => right === true || (wrong += 1),
        () => (wrong += 1),
      )
      pending.add(write)
      void write.then(() => pending.delete(write))
    }
  }, 1)
  return async () => {
    clearInterval(timer)
    const seconds = (performance.now() - start) / 1000
    await Promise.all(pending)
    return { writesPerSecond: sent / seconds, wrong }
  }
}

const commands = {
  async open({ open, seed, many, ...rest }) {
    const stores = await import('./stores.mjs')
    random = generator(seed)
    unique = `${process.pid}`
    manyKeys = many
    store = await stores[open](rest)
    return { name: store.name, kind: store.kind, missing: store.missing }
  },
  async fill({ hasMany }) {
    const keys = hasMany ? [...ownKeys, ...Array.from({ length: manyKeys }, (_, index) => manyKey(index))] : ownKeys
    for (let from = 0; from < keys.length; from += fillAtOnce) {
      await Promise.all(keys.slice(from, from + fillAtOnce).map((key) => store.create(key, 7)))
    }
  },
  slice: ({ operation, inFlight, ms }) => slice({ op: operations[operation], inFlight, ms }),
  async serve() {
    server = createServer((request, response) => response.end('ok'))
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    return server.address().port
  },
  async write({ rate }) {
    stopWriting = writing(rate)
  },
  stop: () => stopWriting(),
  async close() {
    server?.closeAllConnections()
    server?.close()
    await store.close?.()
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
