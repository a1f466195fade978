/** The conformance kit over the embedded store: each engine, each durability. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'vitest'
import { kvConformance } from '../conformance/index.ts'
import { testClock } from '../testing/index.ts'
import { embedded, type EmbeddedOptions } from './embedded.ts'

const variants: readonly Pick<EmbeddedOptions, 'engine' | 'durability'>[] = [
  { engine: 'rocksdb', durability: 'fsync' },
  { engine: 'rocksdb', durability: 'os' },
  { engine: 'portable', durability: 'fsync' },
]

for (const variant of variants) {
  describe(`embedded, ${variant.engine}, ${variant.durability}`, () => {
    kvConformance(test, async () => {
      const dir = mkdtempSync(join(tmpdir(), 'hapax-embedded-'))
      const clock = testClock()
      const kv = await embedded({ ...variant, dir: join(dir, 'data'), clock })
      return {
        kv,
        clock,
        async close() {
          await kv.close()
          rmSync(dir, { recursive: true, force: true })
        },
      }
    })
  })
}
