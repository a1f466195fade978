/** A cluster of this machine whose map is in a real etcd (W9). */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { connect } from '../../core/client/client.ts'
import { isKvError } from '../../core/kv/errors.ts'
import { bundle, type Bundle } from '../../core/stores/testdata/bundled.ts'
import { startDev, type DevCluster } from './dev.ts'

const etcd = process.env['HAPAX_ETCD'] ?? 'etcd'
let child: Bundle
let dir: string
beforeAll(async () => {
  child = await bundle('etcd-child', "import { runChild } from '../../server/run/child.ts'; runChild()")
  dir = mkdtempSync(join(tmpdir(), 'hapax-dev-etcd-'))
})
afterAll(() => {
  child.remove()
  rmSync(dir, { recursive: true, force: true })
})
const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close()
})
async function started(): Promise<DevCluster> {
  const cluster = await startDev({ childFile: child.path, dir, zones: 1, proxies: 1, shards: 4, etcd })
  closing.push(() => cluster.close())
  return cluster
}
const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

test(
  'it is founded there, goes on while etcd is killed and comes back, keeps what was written, and ends with etcd',
  { timeout: 60_000 },
  async () => {
    const first = await started()
    const kv = await connect(first.url)
    await kv.create('a', Uint8Array.from([1]))
    const killed = first.etcd?.pid ?? 0
    expect(isAlive(killed)).toBe(true)
    first.signal('etcd', 'SIGKILL')
    await kv.set('a', Uint8Array.from([2]))
    const status = async (): Promise<{
      readonly children: readonly { readonly name: string; readonly state: string; readonly pid: number }[]
    }> => (await (await fetch(`${first.admin}/status`)).json()) as never
    for (;;) {
      const one = (await status()).children.find(({ name }) => name === 'etcd')
      if (one?.state === 'ready' && one.pid !== killed) break
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await kv.close()
    await first.close()
    expect(isAlive(first.etcd?.pid ?? 0)).toBe(false)
    expect(readdirSync(dir)).toContain('etcd')
    expect(readdirSync(dir)).not.toContain('map.json')

    const second = await started()
    const again = await connect(second.url)
    expect((await again.get('a')).entry?.value).toEqual(Uint8Array.from([2]))
    await again.close()
  },
)

test('without an etcd it says how to have one', async () => {
  const error: unknown = await startDev({ childFile: child.path, etcd: join(dir, 'no-etcd') }).catch((fault: unknown) => fault)
  if (!isKvError(error, 'UNAVAILABLE')) throw error
  expect(error.message).toContain('etcd is not installed')
  expect(error.hint).toContain('apt-get install etcd-server')
})
