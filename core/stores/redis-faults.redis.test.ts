/**
 * What a call says when the network or the server fails it, on real connections through a proxy that loses what the test tells it to.
 * Invariant: what was applied is never called failed, what was not is never called done, and nothing is applied twice.
 */
import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { newId } from '../kv/id.ts'
import type { KV } from '../kv/kv.ts'
import { redisKv, type RedisClient } from './redis.ts'
import { faultOf } from './testdata/fault-of.ts'
import { redisProxy, type RedisProxy } from './testdata/redis-proxy.ts'
import { adminOf, redisServer, until, type RedisServer } from './testdata/redis-server.ts'

const [one, two, three] = [Uint8Array.of(1), Uint8Array.of(2), Uint8Array.of(3)]

let server: RedisServer
let admin: Redis
beforeAll(async () => {
  server = await redisServer()
  admin = adminOf(server.port)
})
afterAll(async () => {
  admin?.disconnect()
  await server?.close()
})

const clients: Readonly<Record<string, (port: number) => Promise<{ client: RedisClient; end: () => void }>>> = {
  ioredis: async (port) => {
    // As it is by default: what was in flight is sent again.
    const client = new Redis({ port, retryStrategy: () => 20 })
    client.on('error', () => undefined)
    await client.ping()
    return { client, end: () => client.disconnect() }
  },
  'node-redis': async (port) => {
    const client = createClient({ socket: { host: '127.0.0.1', port, reconnectStrategy: () => 20 } })
    await client.on('error', () => undefined).connect()
    return { client, end: () => client.destroy() }
  },
}

for (const [name, connect] of Object.entries(clients)) {
  describe(`${name}, a lost connection`, () => {
    let proxy: RedisProxy
    let near: KV
    /** Another client, whose connection is whole. */
    let far: KV
    let end: () => void
    beforeEach(async () => {
      proxy = await redisProxy(server.port)
      const made = await connect(proxy.port)
      end = made.end
      near = redisKv(made.client)
      far = redisKv(admin)
      await near.set('the server knows the scripts', one)
    })
    afterEach(async () => {
      end()
      await near.close()
      await far.close()
      await proxy.close()
    })

    test('after a write was sent is UNKNOWN_OUTCOME; under its requestId it is applied once', async () => {
      const key = newId()
      const requestId = newId()
      await near.get(key)
      proxy.drop('answers')
      const lost = faultOf(near.create(key, one, { requestId }))
      await proxy.dropped()
      proxy.cut()
      expect(await lost).toMatchObject({ code: 'UNKNOWN_OUTCOME', retry: 'same-request-id' })
      const first = (await far.get(key)).entry
      expect(first?.value).toEqual(one)
      const again = await near.create(key, one, { requestId })
      expect(again).toMatchObject({ ok: true, entry: { version: first?.version } })
    })

    test('does not let the client apply an unconditional write a second time after it has connected again', async () => {
      const key = newId()
      await near.get(key)
      proxy.drop('answers')
      const lost = faultOf(near.set(key, one))
      await proxy.dropped()
      await far.set(key, two)
      proxy.cut()
      expect((await lost).code).toBe('UNKNOWN_OUTCOME')
      // Answered after whatever the client sent again on its new connection.
      expect((await near.get(key)).entry?.value).toEqual(two)
    })

    test('before the write arrived is UNKNOWN_OUTCOME as well, and it is never applied', async () => {
      const key = newId()
      await near.get(key)
      proxy.drop('requests')
      const lost = faultOf(near.set(key, one))
      await proxy.dropped()
      proxy.cut()
      expect((await lost).code).toBe('UNKNOWN_OUTCOME')
      expect((await near.get(key)).entry).toBeUndefined()
    })

    test('the deadline of a write that waits for a connection is DEADLINE_EXCEEDED, its signal ABORTED, and neither is applied later', async () => {
      const key = newId()
      await near.get(key)
      const stop = new AbortController()
      proxy.cut(true)
      await until(
        'the client has noticed',
        async () => (await faultOf(near.set(newId(), one, { deadline: 1 }))).code === 'DEADLINE_EXCEEDED',
      )
      const late = faultOf(near.set(key, one, { deadline: 30 }))
      const stopped = faultOf(near.create(key, two, { signal: stop.signal }))
      stop.abort('the client left')
      expect(await stopped).toMatchObject({ code: 'ABORTED', cause: 'the client left' })
      expect((await late).code).toBe('DEADLINE_EXCEEDED')
      await proxy.accept()
      expect((await near.get(key)).entry).toBeUndefined()
      expect((await near.create(key, three)).ok).toBe(true)
    })

    test('the deadline and the signal of a write that was sent are UNKNOWN_OUTCOME, of a read they are without effect', async () => {
      const key = newId()
      await near.get(key)
      const stop = new AbortController()
      proxy.drop('answers')
      const late = faultOf(near.set(key, one, { deadline: 30 }))
      const stopped = faultOf(near.set(key, one, { signal: stop.signal }))
      const lateRead = faultOf(near.get(key, { deadline: 30 }))
      const stoppedRead = faultOf(near.getMany([key, `${key}-b`], { signal: stop.signal }))
      await proxy.dropped()
      stop.abort()
      expect((await late).code).toBe('UNKNOWN_OUTCOME')
      expect((await stopped).code).toBe('UNKNOWN_OUTCOME')
      expect((await lateRead).code).toBe('DEADLINE_EXCEEDED')
      expect((await stoppedRead).code).toBe('ABORTED')
      proxy.cut()
    })

    test('of a client that gave up is UNAVAILABLE', async () => {
      end()
      await until('the client has noticed', async () => (await faultOf(near.get('any'))).code === 'UNAVAILABLE')
      expect(await faultOf(near.set('any', one))).toMatchObject({ code: 'UNAVAILABLE', retry: 'safe' })
      expect(await faultOf(near.get('any'))).toMatchObject({ code: 'UNAVAILABLE' })
    })
  })
}

describe('a server that refuses', () => {
  const withServer = async (args: readonly string[], act: (kv: KV, own: Redis) => Promise<void>): Promise<void> => {
    const own = await redisServer(args)
    const client = new Redis({ port: own.port })
    const kv = redisKv(client)
    try {
      await act(kv, client)
    } finally {
      await kv.close()
      client.disconnect()
      await own.close()
    }
  }

  test('at its maxmemory is MEMORY_FULL: nothing is applied, reads and destroys go on', async () => {
    await withServer(['--maxmemory-policy', 'noeviction'], async (kv, own) => {
      await kv.create('there', one)
      await own.config('SET', 'maxmemory', '1')
      expect(await faultOf(kv.create('new', two))).toMatchObject({ code: 'MEMORY_FULL', retry: 'safe' })
      expect(await faultOf(kv.update('there', two))).toMatchObject({ code: 'MEMORY_FULL' })
      expect((await kv.get('there')).entry?.value).toEqual(one)
      expect((await kv.destroy('there')).ok).toBe(true)
      await own.config('SET', 'maxmemory', '0')
      expect((await kv.get('new')).entry).toBeUndefined()
      expect((await kv.create('new', two)).ok).toBe(true)
    })
  })

  test('as a replica is UNAVAILABLE, and so is one without enough replicas', async () => {
    await withServer([], async (kv, own) => {
      await own.config('SET', 'min-replicas-to-write', '1')
      expect(await faultOf(kv.create('a', one))).toMatchObject({ code: 'UNAVAILABLE', retry: 'safe' })
      await own.config('SET', 'min-replicas-to-write', '0')
      await own.replicaof('127.0.0.1', server.port)
      expect(await faultOf(kv.create('a', one))).toMatchObject({ code: 'UNAVAILABLE', retry: 'safe' })
      await own.replicaof('NO', 'ONE')
      expect((await kv.create('a', one)).ok).toBe(true)
    })
  })

  test('a user without the right is UNAVAILABLE and says what it needs', async () => {
    await withServer([], async (kv, own) => {
      await own.call('ACL', 'SETUSER', 'poor', 'on', '>secret', '~*', '+get')
      const client = new Redis({ port: own.options.port ?? 0, username: 'poor', password: 'secret', enableReadyCheck: false })
      client.on('error', () => undefined)
      const poor = redisKv(client)
      expect(await faultOf(poor.create('a', one))).toMatchObject({
        code: 'UNAVAILABLE',
        hint: expect.stringContaining('EVALSHA') as string,
      })
      await poor.close()
      client.disconnect()
      expect((await kv.get('a')).entry).toBeUndefined()
    })
  })

  test('a script that the server has forgotten is sent again as text, once', async () => {
    await withServer([], async (kv, own) => {
      await kv.create('a', one)
      await own.script('FLUSH')
      expect((await kv.update('a', two)).ok).toBe(true)
      const statistics = await own.info('commandstats')
      expect(/cmdstat_eval:calls=(\d+)/.exec(statistics)?.[1]).toBe('2')
      expect((await kv.update('a', three)).ok).toBe(true)
      expect(/cmdstat_eval:calls=(\d+)/.exec(await own.info('commandstats'))?.[1]).toBe('2')
    })
  })
})

describe('wait', () => {
  test('acknowledges a write once a replica has it, and says UNKNOWN_OUTCOME when none confirms it in time', async () => {
    const replica = await redisServer(['--replicaof', '127.0.0.1', `${server.port}`])
    const replicaAdmin = adminOf(replica.port)
    const client = new Redis({ port: server.port })
    // A replica that is there confirms at once, but on a busy machine "at once" takes its time.
    const kv = redisKv(client, { prefix: 'wait:', wait: { replicas: 1, timeout: '20s' } })
    const hasty = redisKv(client, { prefix: 'wait:', wait: { replicas: 1, timeout: '200ms' } })
    try {
      await until('the replica is in step', async () => (await replicaAdmin.info('replication')).includes('master_link_status:up'))
      const created = await kv.create('a', one)
      expect(created.ok).toBe(true)
      expect(await replicaAdmin.exists('wait:a')).toBe(1)
      // Many at once share their waiting: 400 of them take few WAITs.
      await admin.config('RESETSTAT')
      await Promise.all(Array.from({ length: 400 }, (_, index) => kv.create(`many-${index}`, one)))
      expect(await replicaAdmin.dbsize()).toBeGreaterThanOrEqual(401)
      const waits = Number(/cmdstat_wait:calls=(\d+)/.exec(await admin.info('commandstats'))?.[1])
      expect(waits).toBeGreaterThan(0)
      expect(waits).toBeLessThan(40)

      replica.signal('SIGSTOP')
      const requestId = newId()
      expect(await faultOf(hasty.update('a', two, { requestId }))).toMatchObject({
        code: 'UNKNOWN_OUTCOME',
        message: expect.stringContaining('0 of 1 replicas') as string,
      })
      // An answer from memory and a refusal rest on the same write: they are not acknowledged either.
      expect((await faultOf(hasty.update('a', two, { requestId }))).code).toBe('UNKNOWN_OUTCOME')
      expect((await faultOf(hasty.create('a', three))).code).toBe('UNKNOWN_OUTCOME')
      expect((await faultOf(hasty.update('nothing', three))).code).toBe('UNKNOWN_OUTCOME')
      expect((await hasty.get('a')).entry?.value).toEqual(two)
      replica.signal('SIGCONT')
      await until('the replica confirms again', async () => (await kv.update('a', two, { requestId })).ok)
      expect((await kv.get('a')).entry?.value).toEqual(two)
    } finally {
      await kv.close()
      await hasty.close()
      client.disconnect()
      replicaAdmin.disconnect()
      await replica.close()
    }
  })
})
