/** G18 on a real full disk: a file system of 48 MiB in memory, which only root may mount. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { KvError } from '../kv/errors.ts'
import { embedded } from './embedded.ts'

let dir: string
let isMounted: boolean
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'hapax-full-'))
  const isRoot = process.platform === 'linux' && process.getuid?.() === 0
  isMounted = isRoot && spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=48m', 'tmpfs', dir]).status === 0
})
afterEach(() => {
  if (isMounted) spawnSync('umount', [dir])
  rmSync(dir, { recursive: true, force: true })
})

const value = new Uint8Array(20_000).map((_, index) => index)
const nothing = new Uint8Array(0)
/** What became of a write: undefined when it was acknowledged. */
const refusalOf = (write: Promise<unknown>): Promise<unknown> =>
  write.then(
    () => undefined,
    (error: unknown) => error,
  )

test.for([
  ['rocksdb', 'os'],
  ['rocksdb', 'fsync'],
  ['portable', 'os'],
  ['portable', 'fsync'],
] as const)(
  '%s, %s: a full disk loses nothing acknowledged and keeps nothing refused, and writes go on when there is space',
  { timeout: 120_000 },
  async ([engine, durability], { skip }) => {
    if (!isMounted) return skip('only root may mount a small file system, and only on Linux')
    const ballast = join(dir, 'ballast')
    const kv = await embedded({ dir: join(dir, 'data'), engine, durability, cacheBytes: 0 })
    const { bavail, bsize } = statfsSync(dir)
    writeFileSync(ballast, new Uint8Array(Math.max(0, bavail * bsize - 12_000_000)))

    const acknowledged: string[] = []
    const refused: string[] = []
    let refusal: unknown
    for (let index = 0; index < 5_000 && refusal === undefined; index += 8) {
      const keys = Array.from({ length: 8 }, (_, more) => `key-${index + more}`)
      for (const [place, outcome] of (await Promise.all(keys.map((key) => refusalOf(kv.create(key, value))))).entries()) {
        if (outcome === undefined) acknowledged.push(keys[place] as string)
        else refusal = outcome
        if (outcome instanceof KvError && outcome.retry === 'safe') refused.push(keys[place] as string)
      }
    }
    // LevelDB writes and syncs in one call and does not say which failed: only then may a refused write be there later.
    if (engine !== 'portable' || durability !== 'fsync') expect(refused.length).toBeGreaterThan(0)
    expect(refusal).toMatchObject({ code: 'DISK_FULL' })
    expect(acknowledged.length).toBeGreaterThan(50)
    expect(Buffer.compare((await kv.get('key-0')).entry?.value ?? nothing, value)).toBe(0)

    rmSync(ballast)
    for (let attempt = 0; attempt < 500; attempt++) {
      refusal = await refusalOf(kv.create(`later-${attempt}`, value))
      if (refusal === undefined) break
      expect(refusal).toMatchObject({ code: 'DISK_FULL' })
      await new Promise((resolve) => setTimeout(resolve, 20)) // the store looks at the disk again after 100 ms
    }
    expect(refusal).toBeUndefined()
    await kv.close()

    const again = await embedded({ dir: join(dir, 'data') })
    for (const key of acknowledged) expect(Buffer.compare((await again.get(key)).entry?.value ?? nothing, value), key).toBe(0)
    for (const key of refused) expect((await again.get(key)).entry, key).toBeUndefined()
    await again.close()
  },
)
