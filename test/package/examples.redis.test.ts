/** The packed package on a real Redis: the first example of each pattern's page, with `redisKv` in the place of `memory`. */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { redisServer, type RedisServer } from '../../core/stores/testdata/redis-server.ts'
import { asModule, exampleOf, patterns, redisStore, runProgram } from './first-examples.ts'
import { install, manifest, pack, scratch } from './packed.ts'

const folder = scratch('redis')
const user = join(folder, 'user')
let server: RedisServer
let admin: Redis
beforeAll(async () => {
  install(user, [pack(folder).path, `ioredis@${manifest.devDependencies.ioredis}`], ['--ignore-scripts', '--omit=optional'])
  server = await redisServer()
  admin = new Redis(server.port)
}, 300_000)
afterAll(async () => {
  admin?.disconnect()
  await server?.close()
  rmSync(folder, { recursive: true, force: true })
})

test.each(patterns)('the first example of %s runs on Redis, and leaves its records there', async (pattern) => {
  await admin.flushall()
  expect(runProgram(user, `${pattern}.mjs`, asModule(exampleOf(pattern, redisStore(server.port))))).toEqual({ end: 0, said: '' })
  expect(await admin.dbsize()).toBeGreaterThan(0)
})
