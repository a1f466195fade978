/** Counters on the embedded store, on disk: three instances on one store, as in one process or behind one server. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, test } from 'vitest'
import { newId } from '../../core/kv/id.ts'
import type { KV } from '../../core/kv/kv.ts'
import { scoped } from '../../core/kv/scoped.ts'
import { embedded } from '../../core/stores/embedded.ts'
import { countsOnRealStore } from './testdata/real-store.ts'

const dir = mkdtempSync(join(tmpdir(), 'hapax-counters-'))
let kv: KV
beforeAll(async () => {
  kv = await embedded({ dir })
})
afterAll(async () => {
  await kv?.close()
  rmSync(dir, { recursive: true, force: true })
})

countsOnRealStore(test, async () => {
  const run = scoped(kv, newId())
  return [run, run, run]
})
