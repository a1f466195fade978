/** G18 on a real full disk: a file system of 48 MiB in memory, which only root may mount. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { embedded } from './embedded.ts'

const mount = (dir: string): boolean => spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=48m', 'tmpfs', dir]).status === 0

test.for(['rocksdb', 'portable'] as const)(
  '%s: a full disk loses nothing acknowledged, and writes go on when there is space',
  { timeout: 120_000 },
  async (engine, { skip }) => {
    const dir = mkdtempSync(join(tmpdir(), 'hapax-full-'))
    try {
      if (process.platform !== 'linux' || process.getuid?.() !== 0 || !mount(dir)) return skip('only root may mount a small file system, and only on Linux')
  },
)
