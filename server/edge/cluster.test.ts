/** A whole cluster over real sockets: what a user's client sees while parts of it come and go. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { connect } from '../../core/client/client.ts'
import { isKvError, type KvErrorCode } from '../../core/kv/errors.ts'
import type { KV } from '../../core/kv/kv.ts'
import { modify } from '../../core/kv/modify.ts'
import { Credentials } from '../../core/net/tls.ts'
import type { Policy } from '../proxy/policy.ts'
import { initAuthority, issueInFolder } from './certificates.ts'
import { parseKeyRing, newKeyLine, Sealer } from './sealer.ts'
import { startCluster, type TestCluster, type TestClusterOptions } from './testdata/cluster.ts'

const closing: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close()
})
function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'hapax-cluster-'))
  closing.push(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}
async function started(options: TestClusterOptions = {}): Promise<TestCluster> {
  const cluster = await startCluster(options)
  closing.push(() => cluster.close())
  return cluster
}
async function connected(cluster: TestCluster, options: Parameters<typeof connect>[1] = {}): Promise<KV> {
  const kv = await connect(cluster.url, options)
  closing.push(() => kv.close())
  return kv
}
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const text = (value: Uint8Array | undefined): string => (value === undefined ? 'nothing' : new TextDecoder().decode(value))
const codeOf = (promise: Promise<unknown>): Promise<KvErrorCode | 'none'> =>
  promise.then(
    () => 'none',
    (error: unknown) => (isKvError(error) ? error.code : Promise.reject(error)),
  )

/** Adds one to a count again and again until it is told to stop. */
function counting(kv: KV, key: string, clients: number) {
  const state = { isOver: false, added: 0, longestMs: 0, faults: [] as unknown[] }
  const one = async (): Promise<void> => {
    while (!state.isOver) {
      const startedAt = performance.now()
      try {
        await modify(kv, key, (value) => bytes(String(Number(text(value) === 'nothing' ? '0' : text(value)) + 1)))
        state.added++
      } catch (error) {
        state.faults.push(error)
      }
      state.longestMs = Math.max(state.longestMs, performance.now() - startedAt)
    }
  }
  const over = Promise.all(Array.from({ length: clients }, one))
  return {
    state,
    async until(added: number) {
      while (state.added < added) await new Promise((resolve) => setTimeout(resolve, 5))
    },
    async stop() {
      state.isOver = true
      await over
    },
  }
}

describe.each([1, 3])('%i zones', (zones) => {
  test('the five verbs, on a key', async () => {
    const kv = await connected(await started({ zones }))
    const made = await kv.create('a', bytes('one'), { ttl: '1h' })
    expect(made).toMatchObject({ ok: true, entry: { value: bytes('one'), expiresAt: expect.any(Number) } })
    expect(await kv.create('a', bytes('two'))).toMatchObject({ ok: false, refusal: 'exists', entry: { value: bytes('one') } })
    const { entry } = await kv.get('a')
    expect(entry).toEqual(made.entry)
    const ifVersion = entry?.version
    expect(await kv.update('a', bytes('three'), { ifVersion })).toMatchObject({
      ok: true,
      entry: { value: bytes('three'), expiresAt: entry?.expiresAt },
    })
    expect(await kv.update('a', bytes('four'), { ifVersion })).toMatchObject({
      ok: false,
      refusal: 'version',
      entry: { value: bytes('three') },
    })
    expect(await kv.set('b', bytes(''))).toMatchObject({ ok: true, entry: { value: new Uint8Array(0) } })
    expect((await kv.getMany(['a', 'b', 'c'])).entries.size).toBe(2)
    expect(await kv.destroy('a')).toMatchObject({ ok: true, entry: { value: bytes('three') } })
    expect((await kv.get('a')).entry).toBeUndefined()
    expect(await kv.update('a', bytes('x'))).toMatchObject({ ok: false, refusal: 'missing' })
  })
})

describe('while storage servers come and go', { timeout: 30_000 }, () => {
  test('one that is gone fails no call, and the count is exact', async () => {
    const cluster = await started()
    const kv = await connected(cluster)
    const work = counting(kv, 'n', 8)
    await work.until(100)
    await cluster.stop('s1')
    await work.until(600)
    await work.stop()
    expect(work.state.faults).toEqual([])
    expect(text((await kv.get('n')).entry?.value)).toBe(String(work.state.added))
    expect(cluster.failures).toEqual([])
  })

  test('one that comes back on its directory votes again, and one on an empty directory learns first', async () => {
    const folder = newFolder()
    const cluster = await started({ dirOf: (name) => join(folder, name) })
    const kv = await connected(cluster)
    const work = counting(kv, 'n', 4)
    for (const [index, name] of ['s0', 's1', 's2'].entries()) {
      await work.until(50 * (index + 1))
      await cluster.stop(name)
      if (name === 's2') rmSync(join(folder, name), { recursive: true })
      await work.until(50 * (index + 1) + 20)
      await cluster.start(name)
      // The next one may go only when this one votes.
      const votes = (): boolean =>
        cluster.source.map.rows.every((row) => row.servers.every((server) => cluster.storage.get(server)?.isServing(row.shard) === true))
      while (!votes()) await new Promise((resolve) => setTimeout(resolve, 10))
    }
    await work.until(300)
    await work.stop()
    expect(work.state.faults).toEqual([])
    expect(text((await kv.get('n')).entry?.value)).toBe(String(work.state.added))
    expect(cluster.events.get('learner-served')).toBeGreaterThan(0)
    expect(cluster.failures).toEqual([])
  })

  test('two that are gone leave a clear error, and their return mends it', async () => {
    const folder = newFolder()
    const cluster = await started({ dirOf: (name) => join(folder, name) })
    const kv = await connected(cluster)
    await kv.create('a', bytes('kept'))
    await cluster.stop('s0')
    await cluster.stop('s1')
    expect(['DEADLINE_EXCEEDED', 'UNKNOWN_OUTCOME']).toContain(await codeOf(kv.set('a', bytes('lost?'), { deadline: '300ms' })))
    expect(await codeOf(kv.get('a', { deadline: '300ms' }))).toBe('DEADLINE_EXCEEDED')
    await cluster.start('s0')
    await cluster.start('s1')
    expect(['kept', 'lost?']).toContain(text((await kv.get('a', { deadline: '10s' })).entry?.value))
  })
})

test('a proxy that is gone takes no call with it: the client goes on with the other one', { timeout: 20_000 }, async () => {
  const cluster = await started({ proxies: 2 })
  const kv = await connected(cluster)
  const work = counting(kv, 'n', 8)
  await work.until(100)
  await cluster.proxies[0]?.close(0)
  await work.until(400)
  await work.stop()
  expect(work.state.faults).toEqual([])
  expect(text((await kv.get('n')).entry?.value)).toBe(String(work.state.added))
})

describe('with certificates', { timeout: 20_000 }, () => {
  const policy: Policy = {
    preset: 'wide',
    namespaces: [],
    rules: [
      { clients: ['payments-api'], namespaces: ['test'] },
      { clients: ['report'], namespaces: ['test'], verbs: ['get'] },
    ],
  }
  async function secured(options: TestClusterOptions = {}) {
    const folder = newFolder()
    const now = epochMs(Date.now())
    await initAuthority(folder, 'test', now)
    const files = async (role: 'proxy' | 'storage' | 'client', name: string) => {
      const hosts = role === 'client' ? [] : ['127.0.0.1']
      await issueInFolder(folder, { role, name, hosts }, now)
      return { ca: join(folder, 'ca.crt'), cert: join(folder, `${role}-${name}.crt`), key: join(folder, `${role}-${name}.key`) }
    }
    const credentialsOf = async (role: 'proxy' | 'storage', name: string): Promise<Credentials> => {
      const credentials = await Credentials.open(await files(role, name))
      closing.push(() => credentials[Symbol.asyncDispose]())
      return credentials
    }
    return { cluster: await started({ credentialsOf, policy, ...options }), files }
  }

  test('a client does what the policy allows its certificate, and nothing else', async () => {
    const { cluster, files } = await secured()
    const kv = await connected(cluster, { tls: await files('client', 'payments-api') })
    expect(await kv.create('a', bytes('one'))).toMatchObject({ ok: true })
    const report = await connected(cluster, { tls: await files('client', 'report') })
    expect(text((await report.get('a')).entry?.value)).toBe('one')
    expect(await codeOf(report.set('a', bytes('two')))).toBe('FORBIDDEN')
    const stranger = await connected(cluster, { tls: await files('client', 'stranger') })
    expect(await codeOf(stranger.get('a'))).toBe('FORBIDDEN')
  })

  test('a certificate of a storage server is none of a client, and plain text is not understood', async () => {
    const { cluster, files } = await secured()
    expect(await codeOf(connect(cluster.url, { tls: await files('storage', 's9'), connectTimeout: '1s' }))).toBe('UNAVAILABLE')
    expect(await codeOf(connect(cluster.url, { connectTimeout: '500ms' }))).toBe('UNAVAILABLE')
  })

  test('a proxy with certificates does not start without a policy', async () => {
    await expect(secured({ policy: undefined as never })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  })
})

test('values are sealed on the disks, and open again', async () => {
  const folder = newFolder()
  const sealer = new Sealer(parseKeyRing(newKeyLine(1)))
  const cluster = await started({ zones: 1, sealer, dirOf: (name) => join(folder, name) })
  const kv = await connected(cluster)
  const canary = 'canary-4711-canary'
  await kv.create('a', bytes(canary.repeat(5)))
  expect(text((await kv.get('a')).entry?.value)).toBe(canary.repeat(5))
  await cluster.stop('s0')
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((item) => item.isFile())
  expect(files.length).toBeGreaterThan(3)
  for (const { parentPath, name } of files) expect(readFileSync(join(parentPath, name)).includes(canary), name).toBe(false)
})
