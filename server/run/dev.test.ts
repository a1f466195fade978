/** A cluster of real processes: killed, stopped and restarted while clients count. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { connect } from '../../core/client/client.ts'
import type { KV } from '../../core/kv/kv.ts'
import { modify } from '../../core/kv/modify.ts'
import { bundle, type Bundle } from '../../core/stores/testdata/bundled.ts'
import { startDev, type DevCluster, type DevOptions } from './dev.ts'

let child: Bundle
beforeAll(async () => {
  child = await bundle('cluster-child', "import { runChild } from '../../server/run/child.ts'; runChild()")
})
afterAll(() => child.remove())
const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close()
})
async function started(options: DevOptions = {}): Promise<{ readonly cluster: DevCluster; readonly kv: KV }> {
  const cluster = await startDev({ childFile: child.path, ...options })
  closing.push(() => cluster.close())
  const kv = await connect(cluster.url)
  closing.push(() => kv.close())
  return { cluster, kv }
}

const numberIn = (value: Uint8Array | undefined): number => (value === undefined ? 0 : Number(Buffer.from(value).toString()))
/** Adds one again and again; tells how many were added, what failed, and how long the longest took. */
function counting(kv: KV, clients: number) {
  const state = { isOver: false, added: 0, longestMs: 0, faults: [] as unknown[] }
  const one = async (key: string): Promise<void> => {
    while (!state.isOver) {
      const startedAt = performance.now()
      try {
        await modify(kv, key, (value) => Uint8Array.from(Buffer.from(String(numberIn(value) + 1))))
        state.added++
      } catch (error) {
        state.faults.push(error)
      }
      state.longestMs = Math.max(state.longestMs, performance.now() - startedAt)
    }
  }
  const keys = Array.from({ length: clients }, (_, index) => `n${index % 4}`)
  const over = Promise.all(keys.map(one))
  return {
    state,
    async until(added: number) {
      while (state.added < added) await new Promise((resolve) => setTimeout(resolve, 5))
    },
    async stop(): Promise<number> {
      state.isOver = true
      await over
      const { entries } = await kv.getMany([...new Set(keys)])
      return [...entries.values()].reduce((sum, { value }) => sum + numberIn(value), 0)
    },
  }
}

describe('a cluster of processes', { timeout: 60_000 }, () => {
  test('takes a killed, a stopped and a restarted storage server without a failed call, and counts exactly', async () => {
    const { cluster, kv } = await started()
    expect(cluster.processes.map(({ role }) => role)).toEqual(['storage', 'storage', 'storage', 'proxy', 'proxy'])
    const work = counting(kv, 16)
    await work.until(200)
    cluster.signal('storage-2', 'SIGKILL')
    await work.until(700)
    cluster.signal('storage-1', 'SIGSTOP')
    await work.until(1_200)
    cluster.signal('storage-1', 'SIGCONT')
    await work.until(1_400)
    cluster.signal('storage-3', 'SIGTERM') // it leaves in order, and comes back
    await work.until(1_900)
    const count = await work.stop()
    expect(work.state.faults).toEqual([])
    expect(count).toBe(work.state.added)
    expect(cluster.restarts).toBe(2)
  })

  test('takes a killed proxy: what was under way there is asked of the other one', async () => {
    const { cluster, kv } = await started({ memory: true })
    const work = counting(kv, 16)
    await work.until(200)
    cluster.signal('proxy-1', 'SIGKILL')
    await work.until(1_000)
    const count = await work.stop()
    expect(work.state.faults).toEqual([])
    expect(count).toBe(work.state.added)
  })

  test('is restarted process by process under load: nothing fails and nothing is lost (W10)', async () => {
    const { cluster, kv } = await started()
    const work = counting(kv, 8)
    await work.until(100)
    for (const { name, pid } of cluster.processes) {
      cluster.signal(name, 'SIGTERM')
      const isBack = (): boolean => {
        const now = cluster.processes.find((one) => one.name === name)
        return now !== undefined && now.pid !== pid && now.isReady
      }
      while (!isBack()) await new Promise((resolve) => setTimeout(resolve, 10))
      await work.until(work.state.added + 200)
    }
    const count = await work.stop()
    expect(work.state.faults).toEqual([])
    expect(count).toBe(work.state.added)
    expect(cluster.restarts).toBe(5)
  })

  test('of one zone keeps what was acknowledged over the death of everybody', async () => {
    const { cluster, kv } = await started({ zones: 1, proxies: 1 })
    await kv.create('a', Uint8Array.from([1, 2, 3]))
    cluster.signal('storage-1', 'SIGKILL')
    cluster.signal('proxy-1', 'SIGKILL')
    expect((await kv.get('a', { deadline: '20s' })).entry?.value).toEqual(Uint8Array.from([1, 2, 3]))
  })
})
