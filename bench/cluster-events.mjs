/**
 * What a cluster does while something goes on: at a fixed rate for minutes (W46), among idle and slow connections (W47), on a hot key (W48).
 * Invariant: at a fixed rate a latency counts from the instant at which the request was due, and a generator that lags voids the run, so that
 * neither a stall nor a busy client can hide what was late. Why no rounds: minutes are what is asked for, and a stall has to be seen once.
 */
import { connect as connectSocket } from 'node:net'
import { performance } from 'node:perf_hooks'
import { hapax, slice } from './harness.mjs'

const lagMsMax = 10
const badMs = 200
const slowEveryMs = 1_000
const openAtOnce = 200

const at = (sorted, quantile) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * quantile))] ?? 0

/**
 * Half reads, half writes, at `rate` a second for `ms`. A request is bad when it fails, answers wrongly, or takes longer than 200 ms.
 * @returns a row; `isVoid`: the generator itself was late, and nothing is known
 */
export async function openLoop(name, client, { any, valueOf }, { rate, ms }) {
  const total = Math.max(1, Math.floor((rate * ms) / 1_000))
  const latencies = new Float64Array(total)
  let [sent, done, bad, wrong, lagMs, reads] = [0, 0, 0, 0, 0, 0]
  const ask = async (due) => {
    const key = any()
    reads ^= 1
    const right = await (reads ? client.get(key, valueOf(key)) : client.set(key, valueOf(key))).catch(() => undefined)
    const tookMs = performance.now() - due
    latencies[done] = tookMs
    done += 1
    if (right !== true || tookMs > badMs) bad += 1
    if (right === false) wrong += 1
  }
  const asked = []
  const start = performance.now()
  await new Promise((resolve) => {
    const step = () => {
      const now = performance.now()
      for (; sent < total && start + (sent * 1_000) / rate <= now; sent += 1) {
        const due = start + (sent * 1_000) / rate
        lagMs = Math.max(lagMs, now - due)
        asked.push(ask(due))
      }
      if (sent === total) return resolve()
      setTimeout(step, 1)
    }
    step()
  })
  await Promise.all(asked)
  latencies.sort()
  const [p50Ms, p99Ms, p999Ms, maxMs] = [0.5, 0.99, 0.999, 1].map((quantile) => at(latencies, quantile))
  return { name, requests: total, bad, wrong, p50Ms, p99Ms, p999Ms, maxMs, lagMs, isVoid: lagMs > lagMsMax }
}

/** Opens connections to a proxy: `idle` that say nothing, and `slow` that send one byte of a message a second. @returns what ends them */
export async function strangers(address, { idle, slow }) {
  const [host, port] = [address.slice(0, address.lastIndexOf(':')), Number(address.slice(address.lastIndexOf(':') + 1))]
  const sockets = new Set()
  const open = () =>
    new Promise((resolve, reject) => {
      const socket = connectSocket({ host, port }, () => resolve(socket))
      socket.once('error', reject)
      socket.on('error', () => {})
      socket.once('close', () => sockets.delete(socket))
      sockets.add(socket)
    })
  const all = []
  for (let left = idle + slow; left > 0; left -= openAtOnce)
    all.push(...(await Promise.all(Array.from({ length: Math.min(left, openAtOnce) }, open))))
  // A head that promises a long message: the rest comes a byte at a time.
  const head = Buffer.from('50500141000010000000000004000000', 'hex')
  const dripping = all.slice(0, slow).map((socket, index) => {
    socket.write(head.subarray(0, 12))
    return setInterval(() => socket.writable && socket.write(head.subarray(12, 13)), slowEveryMs + (index % slowEveryMs))
  })
  return {
    closed: () => idle + slow - sockets.size,
    end() {
      for (const timer of dripping) clearInterval(timer)
      for (const socket of sockets) socket.destroy()
    },
  }
}

/** 64 callers add one to the same key, through `modify` and by plain updates that are tried again. @returns contenders for a table */
export async function hotKey(client, { inFlight, ms }) {
  const { modify, scoped, json } = await hapax('core/index.js')
  const counted = (name, add) => ({ name, refused: 0, add })
  const numbers = scoped(client.kv, 'hot', { codec: json() })
  const seen = new Map()
  const isNew = (name, value) => {
    const known = seen.get(name) ?? new Set()
    seen.set(name, known)
    return known.size < known.add(value).size
  }
  const contenders = [
    counted('modify', async () => isNew('modify', (await modify(numbers, 'modify', (value = 0) => value + 1)).entry.value)),
    counted('plain updates', async () => {
      let { entry } = await numbers.get('plain')
      for (;;) {
        const value = (entry?.value ?? 0) + 1
        const result =
          entry === undefined ? await numbers.create('plain', value) : await numbers.update('plain', value, { ifVersion: entry.version })
        if (result.ok) return isNew('plain', value)
        ;({ entry } = result)
      }
    }),
  ]
  return contenders.map((one) => ({
    name: one.name,
    kind: `${inFlight} callers`,
    get refused() {
      return one.refused
    },
    run: () =>
      slice({
        op: () =>
          one.add().catch(() => {
            one.refused += 1
            return true
          }),
        inFlight,
        ms,
      }),
  }))
}
