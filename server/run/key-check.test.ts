/** A proxy without the keys under which values lie does not start, and does not serve (W13). */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { isKvError, KvError } from '../../core/kv/errors.ts'
import { newKeyLine, parseKeyRing, type KeyRing } from '../edge/sealer.ts'
import { MemorySource } from '../source/memory.ts'
import { KeyWatch } from './key-check.ts'
import { silentLog } from './log.ts'
import { openProcess, type RunningProcess } from './process.ts'
import { readSettings } from './settings.ts'

const [one, two, otherTwo] = [newKeyLine(1), newKeyLine(2), newKeyLine(2)]
const mistakeOf = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise
    return 'none'
  } catch (error) {
    if (!isKvError(error)) throw error
    return `${error.code}: ${error.message} (${error.hint})`
  }
}

describe('a proxy', () => {
  let dir: string
  const closing: RunningProcess[] = []
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'hapax-keys-'))
  })
  afterEach(async () => {
    for (const each of closing.splice(0)) await each.close()
    rmSync(dir, { recursive: true, force: true })
  })
  async function started(lines: readonly string[] | undefined, more: Readonly<Record<string, string>> = {}): Promise<RunningProcess> {
    const keys = join(dir, 'keys')
    if (lines !== undefined) writeFileSync(keys, `${lines.join('\n')}\n`, { mode: 0o600 })
    const flags = { cluster: 'c', name: 'p', zones: '1', shards: '2', plain: true, 'map.file': join(dir, 'map.json') }
    const { values } = await readSettings({
      flags: { ...flags, ...(lines === undefined ? { encryption: 'off' } : { keys }), ...more },
      env: {},
    })
    const onFailure = (error: unknown): void => {
      throw error
    }
    const running = await openProcess({ role: 'proxy', settings: values, version: '1.2.3', log: silentLog, onFailure })
    closing.push(running)
    return running
  }

  test('starts with a key more, and does not start with one less than sealed values', async () => {
    await started([one])
    await started([one, two])
    const said = await mistakeOf(started([two]))
    expect(said).toContain('KEY_MISSING: HPX-1009 values of the cluster are sealed under key version 1, which the key file does not have')
    expect(said).toContain('put the line back')
    // Not even with the newest one missing: the others seal with it.
    expect(await mistakeOf(started([one]))).toContain('key version 2')
    await started([two, one])
  })

  test('does not start with another key of a version, and does not without any', async () => {
    await started([one, two])
    expect(await mistakeOf(started([one, otherTwo]))).toContain('the key file has another key version 2')
    expect(await mistakeOf(started(undefined))).toContain('sealed under key version 2, and encryption is off')
  })

  test('starts without a key that is said to be retired', async () => {
    await started([one])
    expect(await mistakeOf(started([two]))).toContain('keys-retired')
    await started([two], { 'keys-retired': '1' })
    expect(await mistakeOf(started([two], { 'keys-retired': 'one' }))).toContain('INVALID_ARGUMENT')
  })

  test('leaves beside the map what tells keys apart, and nothing of a key', async () => {
    await started([one])
    const kept = readFileSync(join(dir, 'map.json.keys'), 'utf8')
    expect(JSON.parse(kept)).toMatchObject({ keys: [{ version: 1, check: expect.stringMatching(/^[0-9a-f]{16}$/) }] })
    expect(kept).not.toContain(one.slice(2, 18))
  })
})

describe('while the map is away', () => {
  const ring = (lines: readonly string[]): KeyRing => parseKeyRing(lines.join('\n'))
  function watchOver(source: MemorySource) {
    const state = { isAway: true }
    const keyChecks: MemorySource['keyChecks'] = async (more) => {
      if (state.isAway) throw new KvError('UNAVAILABLE')
      return await source.keyChecks(more)
    }
    return { state, watch: new KeyWatch({ source: { keyChecks }, retired: [], log: silentLog }) }
  }
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  test('a proxy starts and is not ready, until it could ask', async () => {
    const { state, watch } = watchOver(new MemorySource(1, 1))
    await watch.begin(() => ring([one]))
    expect(watch.why).toContain('could not be asked')
    await vi.advanceTimersByTimeAsync(5_000)
    expect(watch.why).toContain('could not be asked')
    state.isAway = false
    await vi.advanceTimersByTimeAsync(5_000)
    expect(watch.why).toBeUndefined()
    watch.close()
  })

  test('one that turns out to lack a key never becomes ready, and an exchange is refused', async () => {
    const source = new MemorySource(1, 1)
    await new KeyWatch({ source, retired: [], log: silentLog }).check(ring([two]))
    const { state, watch } = watchOver(source)
    await watch.begin(() => ring([one]))
    expect(await mistakeOf(watch.check(ring([one])))).toContain('UNAVAILABLE')
    state.isAway = false
    await vi.advanceTimersByTimeAsync(5_000)
    expect(watch.why).toContain('HPX-1009')
    expect(await mistakeOf(watch.check(ring([one])))).toContain('KEY_MISSING')
    watch.close()
  })
})
