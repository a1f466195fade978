/** Counters on a real Redis: three clients, three stores, one key. */
import { Redis } from 'ioredis'
import { afterAll, beforeAll, test } from 'vitest'
import { newId } from '../../core/kv/id.ts'
import { redisKv } from '../../core/stores/redis.ts'
import { redisServer, type RedisServer } from '../../core/stores/testdata/redis-server.ts'
import { countsOnRealStore } from './testdata/real-store.ts'

let server: RedisServer
const clients: Redis[] = []
beforeAll(async () => {
  server = await redisServer()
})
afterAll(async () => {
  for (const client of clients) client.disconnect()
  await server?.close()
})

countsOnRealStore(test, async () => {
  const prefix = `${newId()}:`
  return [false, true, true].map((enableAutoPipelining) => {
    const client = new Redis({ port: server.port, enableAutoPipelining })
    clients.push(client)
    return redisKv(client, { prefix })
  })
})
