/**
 * Who asks in the benchmark of the cluster: our own client, plain JunoDB frames, and Redis through its two clients.
 * Invariant: all read and write the same keys and values of the same length, and each answer is looked at.
 * Why JunoDB's frames come from our own pool of connections: its clients are no packages of Node, and what is measured are the servers.
 */
import { Redis } from 'ioredis'
import { createClient, RESP_TYPES } from 'redis'
import { hapax, slice } from './harness.mjs'

export const valueBytes = 200
const fillAtOnce = 256
const requestMs = 5_000
const zones = 3

/** Says its key, so that a wrong answer is seen. */
export const valueOf = (key) => Buffer.alloc(valueBytes, `${key} `)

/** The keys of a run, and one of them by chance. */
export function keysOf(count, random) {
  const keys = Array.from({ length: count }, (_, index) => `payment-${index}`)
  const values = new Map(keys.map((key) => [key, valueOf(key)]))
  return { keys, any: () => keys[Math.floor(random() * count)], valueOf: (key) => values.get(key) }
}

export async function fill({ keys, valueOf: value }, set) {
  for (let from = 0; from < keys.length; from += fillAtOnce) {
    const answers = await Promise.all(keys.slice(from, from + fillAtOnce).map((key) => set(key, value(key))))
    if (!answers.every((answer) => answer === true)) throw new Error('not everything was written')
  }
}

/** Our client. `get` and `set` resolve to whether the answer was right. */
export async function ownClient(cluster) {
  const { connect } = await hapax('core/client/client.js')
  const kv = await connect(cluster.url, { tls: cluster.tls, deadline: '5s' })
  return {
    kv,
    get: async (key, value) => {
      const { entry } = await kv.get(key)
      return entry !== undefined && sameBytes(entry.value, value)
    },
    set: async (key, value) => (await kv.set(key, value)).entry.value.length === value.length,
    close: () => kv.close(),
  }
}

/** Length and ends: what is compared must cost less than what is measured. */
const sameBytes = (left, right) =>
  left.length === right.length && left[8] === right[8] && left[9] === right[9] && left[left.length - 1] === right[right.length - 1]

/** JunoDB's protocol as its clients speak it: no field of ours, a request id each, the value with its type before it. */
export async function junoFrames(cluster) {
  const { Pool } = await hapax('core/net/pool.js')
  const { JunoCodec } = await hapax('core/wire/juno-codec.js')
  const { Opcode } = await hapax('core/wire/juno-message.js')
  const { seededRandom } = await hapax('core/base/random.js')
  const { parseAddress } = await hapax('core/net/address.js')
  const namespace = Buffer.from('default')
  const head = {
    isRequest: true,
    opaque: 0,
    flags: 0,
    status: 0,
    meta: {},
    namespace: Buffer.alloc(0),
    key: Buffer.alloc(0),
    hasPayload: true,
  }
  const pool = new Pool({
    addresses: cluster.proxyAddresses.map(parseAddress),
    size: 4,
    security: 'plain',
    codec: new JunoCodec(),
    random: seededRandom(1),
    ping: { ...head, opcode: Opcode.nop },
    queueBytesMax: 16_777_216,
  })
  await pool.ready({ timeoutMs: requestMs })
  let number = 0
  const ask = (opcode, key, payload) => {
    const requestId = Buffer.alloc(16)
    requestId.writeUInt32BE((number += 1), 12)
    return pool.request({ ...head, opcode, meta: { requestId }, namespace, key: Buffer.from(key), payload }, { timeoutMs: requestMs })
  }
  const clear = Buffer.from([0])
  return {
    get: async (key, value) => {
      const { status, payload } = await ask(Opcode.get, key, undefined)
      return status === 0 && payload.length === value.length + 1 && payload[9] === value[8] && payload[10] === value[9]
    },
    set: async (key, value) => (await ask(Opcode.set, key, Buffer.concat([clear, value]))).status === 0,
    close: () => pool.close(),
  }
}

const quiet = (client) => client.on('error', () => {})

export async function ioredisClient({ port }) {
  const client = quiet(new Redis({ host: '127.0.0.1', port, enableAutoPipelining: true }))
  return {
    get: async (key, value) => {
      const found = await client.getBuffer(key)
      return found !== null && sameBytes(found, value)
    },
    set: async (key, value) => (await client.set(key, value)) === 'OK',
    close: () => client.disconnect(),
  }
}

export async function nodeRedisClient({ port }) {
  const client = quiet(createClient({ socket: { host: '127.0.0.1', port } }))
  await client.connect()
  const bytes = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer })
  return {
    get: async (key, value) => {
      const found = await bytes.get(key)
      return found !== null && sameBytes(found, value)
    },
    set: async (key, value) => (await client.set(key, value)) === 'OK',
    close: () => client.destroy(),
  }
}

/**
 * A contender of a table. Beside the slice of the harness it adds up the CPU time of the servers, by role.
 * @param servers `{ proxyCpu, storageCpu }` of a cluster, or `{ serverCpu }` of a Redis
 */
export function asking({ name, kind, verb, client, keys, servers, inFlight, ms }) {
  const used = { ops: 0, proxyUs: 0, storageUs: 0, serverUs: 0 }
  const { any, valueOf: value } = keys
  const op = () => {
    const key = any()
    return client[verb](key, value(key))
  }
  const cpu = () => [servers.proxyCpu?.() ?? 0, servers.storageCpu?.() ?? 0, servers.serverCpu?.() ?? 0]
  return {
    name,
    kind,
    used,
    run: async () => {
      const before = cpu()
      const one = await slice({ op, inFlight, ms })
      const after = cpu()
      used.ops += one.opsInAll
      used.proxyUs += after[0] - before[0]
      used.storageUs += after[1] - before[1]
      used.serverUs += after[2] - before[2]
      return one
    },
  }
}

/** Puts the servers' CPU an operation into the rows of a table. `storageUsPerOp` is of all zones together. */
export function withCpu(rows, contenders) {
  for (const row of rows) {
    const { ops, proxyUs, storageUs, serverUs } = contenders.find(({ name }) => name === row.name).used
    row.proxyUsPerOp = proxyUs / ops
    row.storageUsPerOp = storageUs / ops
    row.serverCpuUsPerOp = (proxyUs + storageUs + serverUs) / ops
    row.oneStorageUsPerOp = storageUs / ops / zones
  }
  return rows
}
