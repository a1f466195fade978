/** The kit's four processes, over a store that processes can share: the memory store served over HTTP. */
import { strict as assert } from 'node:assert'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, test } from 'vitest'
import type { KV } from '../kv/kv.ts'
import { memory } from '../stores/memory.ts'
import { settle } from '../testing/clock.ts'
import { kvConformance, kvConformanceReport, type Setup } from './index.ts'

interface Wire {
  bytesOut(name: string, value: unknown): unknown
  bytesIn(name: string, value: unknown): unknown
}
const moduleUrl = new URL('./testdata/shared-store.mjs', import.meta.url).href

/** Serves `get` and `update` of a store on a port of its own. */
async function served(kv: KV): Promise<Setup> {
  const { bytesOut, bytesIn } = (await import(moduleUrl)) as Wire
  const server = createServer(async (request, response) => {
    try {
      let text = ''
      for await (const chunk of request) text += String(chunk)
      const { verb, args } = JSON.parse(text, bytesIn) as { verb: 'get' | 'update'; args: [string, Uint8Array] }
      const answer = verb === 'get' ? await kv.get(args[0]) : await kv.update(...args)
      response.end(JSON.stringify(answer, bytesOut))
    } catch {
      response.writeHead(500).end()
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    kv,
    processes: { module: moduleUrl, args: [String(port)] },
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

kvConformance(test, () => served(memory()), { groups: ['contention'], updates: 100 })

test('four processes find the lost updates of a store that compares and writes in two steps', async () => {
  const careless = (): KV => {
    const kv = memory()
    return {
      ...kv,
      update: async (key, value, options = {}) => {
        const { entry, now } = await kv.get(key)
        if (entry && entry.version !== options.ifVersion) return { ok: false, refusal: 'version', entry, now }
        await settle(2)
        return await kv.update(key, value)
      },
    }
  }
  const { cases } = await kvConformanceReport(() => served(careless()), { groups: ['contention'], updates: 1 })
  const one = cases.find(({ name }) => name.startsWith('4 processes'))
  expect(one?.status).toBe('failed')
  assert.match(one?.reason ?? '', /the sum/)
})
