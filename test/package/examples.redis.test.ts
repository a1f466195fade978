/** The packed package on a real Redis: the example of docs/redis.md, and the first one of each pattern's page with `redisKv` in the place of `memory`. */
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { redisServer, until, type RedisServer } from '../../core/stores/testdata/redis-server.ts'
import { snippetsOf, type Snippet } from '../docs/snippet.ts'
import { asModule, exampleOf, patterns, redisStore, runProgram } from './first-examples.ts'
import { install, manifest, pack, root, scratch } from './packed.ts'

const folder = scratch('redis')
const user = join(folder, 'user')
let server: RedisServer
let replica: RedisServer
let admin: Redis
beforeAll(async () => {
  install(user, [pack(folder).path, `ioredis@${manifest.devDependencies.ioredis}`], ['--ignore-scripts', '--omit=optional'])
  server = await redisServer()
  replica = await redisServer(['--replicaof', '127.0.0.1', `${server.port}`])
  admin = new Redis(server.port)
  await until('the replica is in step', async () => (await admin.info('replication')).includes('state=online'))
}, 300_000)
afterAll(async () => {
  admin?.disconnect()
  await Promise.all([server?.close(), replica?.close()])
  rmSync(folder, { recursive: true, force: true })
})

test('the example of docs/redis.md runs as it stands, but for the port, and its writes are confirmed by a replica', async () => {
  const [{ code }] = snippetsOf('redis', readFileSync(join(root, 'docs/redis.md'), 'utf8')) as [Snippet]
  // A replica of a busy machine takes longer than in production.
  const here = code.replace(':6379', `:${server.port}`).replace("timeout: '50ms'", "timeout: '10s'")
  expect(here).not.toBe(code)
  expect(runProgram(user, 'redis.mjs', asModule(here))).toEqual({ end: 0, said: '' })
  expect(await admin.keys('shop:*')).toHaveLength(2)
})

test.each(patterns)('the first example of %s runs on Redis, and leaves its records there', async (pattern) => {
  await admin.flushall()
  expect(runProgram(user, `${pattern}.mjs`, asModule(exampleOf(pattern, redisStore(server.port))))).toEqual({ end: 0, said: '' })
  expect(await admin.dbsize()).toBeGreaterThan(0)
})
