/**
 * The store on a real Redis: the conformance kit through both clients, alone and with replicas to wait for, and a pattern on top.
 * Invariant: each case has a client of its own, which it ends itself; the server is shared.
 * Why idempotency here: its two conditional writes are what the contract is for, and here two processes' worth of stores meet on one key.
 */
import { pathToFileURL } from 'node:url'
import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { idempotency } from '../../patterns/idempotency/index.ts'
import { kvConformance } from '../conformance/index.ts'
import { newId } from '../kv/id.ts'
import { faulty } from '../testing/index.ts'
import { redisKv } from './redis.ts'
import { bundle, type Bundle } from './testdata/bundled.ts'
import { adminOf, redisServer, until, type RedisServer } from './testdata/redis-server.ts'

/** How another process reaches the store. */
const source = `
import { Redis } from 'ioredis'
import { redisKv } from './redis.ts'
export const openKv = (port) => redisKv(new Redis({ port: Number(port) }))
`

let server: RedisServer
let replica: RedisServer
let elsewhere: Bundle
beforeAll(async () => {
  elsewhere = await bundle('redis', source)
  server = await redisServer()
  replica = await redisServer(['--replicaof', '127.0.0.1', `${server.port}`])
  const admin = adminOf(replica.port)
  await until('the replica is in step', async () => (await admin.info('replication')).includes('master_link_status:up'))
  admin.disconnect()
})
afterAll(async () => {
  await Promise.all([server?.close(), replica?.close()])
  elsewhere?.remove()
})

const ioredis = () => new Redis({ port: server.port })
const nodeRedis = () =>
  createClient({ socket: { host: '127.0.0.1', port: server.port } })
    .on('error', () => undefined)
    .connect()
const processes = () => ({ module: pathToFileURL(elsewhere.path).href, args: [`${server.port}`] })

describe('ioredis', () => {
  kvConformance(test, () => {
    const client = ioredis()
    return { kv: redisKv(client), processes: processes(), close: () => client.disconnect() }
  })
})

describe('ioredis that gives numbers as texts and gathers commands, with a prefix', () => {
  kvConformance(test, () => {
    const client = new Redis({ port: server.port, stringNumbers: true, enableAutoPipelining: true })
    return { kv: redisKv(client, { prefix: 'a shop:{1}:' }), close: () => client.disconnect() }
  })
})

describe('node-redis', () => {
  kvConformance(test, async () => {
    const client = await nodeRedis()
    return { kv: redisKv(client), processes: processes(), close: () => client.destroy() }
  })
})

describe('node-redis that speaks RESP2', () => {
  kvConformance(
    test,
    async () => {
      const client = createClient({ RESP: 2, socket: { host: '127.0.0.1', port: server.port } }).on('error', () => undefined)
      await client.connect()
      return { kv: redisKv(client), close: () => client.destroy() }
    },
    { groups: ['verbs', 'bytes', 'expiry', 'requests'] },
  )
})

for (const [name, connect] of Object.entries({ ioredis: async () => ioredis(), 'node-redis': nodeRedis })) {
  describe(`${name}, each write confirmed by a replica`, () => {
    kvConformance(
      test,
      async () => {
        const client = await connect()
        const end = (): void => ('destroy' in client ? client.destroy() : client.disconnect())
        return { kv: redisKv(client, { wait: { replicas: 1, timeout: '5s' } }), close: end }
      },
      { updates: 1_000, histories: 10 },
    )
  })
}

describe('idempotency', () => {
  const options = { name: 'payments', retention: '24h', lease: '30s', final: 'stripe', afterCrash: 'refuse' } as const
  const input = { amount: 2_990 }

  test('64 equal requests at once over 4 clients run one handler, and all later ones replay its answer', async () => {
    const clients = Array.from({ length: 4 }, ioredis)
    const stores = clients.map((client) => redisKv(client, { prefix: 'pay:' }))
    const doors = stores.map((kv) => idempotency({ kv, ...options }))
    let charges = 0
    const pay = (door: number, key: string) => doors[door % 4]?.run({ scope: 'ada', key, input }, () => ({ charge: ++charges }))
    for (let round = 1; round <= 20; round++) {
      const key = newId()
      const results = await Promise.all(Array.from({ length: 64 }, (_, index) => pay(index, key)))
      expect(charges).toBe(round)
      for (const result of results)
        expect(result?.ok ? result.value : result?.refusal).toEqual(result?.ok ? { charge: round } : 'in-flight')
      expect(await pay(1, key)).toMatchObject({ ok: true, replayed: true, value: { charge: round } })
    }
    expect(await doors[0]?.run({ scope: 'ada', key: newId(), input }, () => 'another')).toMatchObject({ value: 'another' })
    await Promise.all(stores.map((kv) => kv.close()))
    for (const client of clients) client.disconnect()
  })

  test('a store that loses a quarter of its answers still makes one charge a key', { timeout: 60_000 }, async () => {
    const client = ioredis()
    const kv = redisKv(client, { prefix: 'faults:' })
    const seed = Number(process.env.HAPAX_SEED ?? 1)
    const store = faulty(kv, { seed, unknownBeforeApply: 0.1, unknownAfterApply: 0.15 })
    const payments = idempotency({ kv: store, ...options })
    for (let order = 0; order < 40; order++) {
      const key = newId()
      let charges = 0
      const pay = () =>
        payments
          .run({ scope: 'ada', key, input }, () => ({ charge: ++charges }))
          .then(
            (result) => (result.ok ? result.value : undefined),
            () => undefined,
          )
      const told = await Promise.all(Array.from({ length: 6 }, pay))
      for (let again = 0; again < 3; again++) told.push(await pay())
      expect(charges, `seed ${seed}, order ${order}`).toBeLessThanOrEqual(1)
      for (const value of told) if (value !== undefined) expect(value).toEqual({ charge: 1 })
    }
    expect(store.counts().unknownAfter).toBeGreaterThan(0)
    await kv.close()
    client.disconnect()
  })
})
