/** The command: what it prints, what it writes, and its exit status (Q14). Each run bundles the simulator, so there are few. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { mutants } from './mutants.ts'

const tool = fileURLToPath(new URL('../../tools/sim.mjs', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'hapax-sim-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function sim(...args: string[]): { readonly status: number | null; readonly text: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [tool, ...args], { encoding: 'utf8' })
  return { status, text: stdout + stderr }
}

describe('npm run sim', { timeout: 60_000 }, () => {
  test('ends with 0 when nothing was wrong, and writes the report', () => {
    const path = join(folder, 'report.json')
    const { status } = sim('--seed', '1', '--histories', '30', '--zones', '3', '--json', path)
    expect(status).toBe(0)
    const report = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
    expect(Object.keys(report)).toEqual([
      'seed',
      'zones',
      'histories',
      'operations',
      'faults',
      'violations',
      'undecided',
      'operationsPerSecond',
      'logHash',
      'sometimes',
      'mutants',
    ])
    expect(report).toMatchObject({ seed: 1, zones: 3, violations: [], undecided: 0, mutants: [] })
    expect(report['histories']).toBeGreaterThanOrEqual(30) // and those that once failed
    expect(report['logHash']).toMatch(/^[0-9a-f]{12}$/)
    const again = join(folder, 'again.json')
    sim('--seed', '1', '--histories', '30', '--zones', '3', '--json', again)
    expect((JSON.parse(readFileSync(again, 'utf8')) as Record<string, unknown>)['logHash']).toBe(report['logHash'])
  })

  test('ends with 1 when something that has to happen never did', () => {
    const { status, text } = sim('--seed', '1', '--histories', '1')
    expect(text).toMatch(/^NEVER [a-z-]+: [a-z]/m)
    expect(status).toBe(1)
  })

  test('ends with 0 when a mutant was caught, and with 1 when it lives', () => {
    const quick = 'R6-no-completions'
    const path = join(folder, 'hunt.json')
    expect(sim('--seed', '1', '--mutant', quick, '--histories', '100', '--json', path)).toMatchObject({ status: 0 })
    const report = JSON.parse(readFileSync(path, 'utf8')) as { mutants: unknown[] }
    expect(report.mutants).toEqual([{ name: quick, caught: true, histories: expect.any(Number) }])
    const hidden = mutants.find(({ name }) => name === 'R2-no-floor' || name.startsWith('R2')) as { name: string }
    const alive = sim('--seed', '1', '--mutant', hidden.name, '--histories', '1', '--zones', '1', '--faults', '')
    expect(alive.text).toContain(`ALIVE ${hidden.name}`)
    expect(alive.status).toBe(1)
  })

  test('ends with 2, and the help, for what it does not know', () => {
    for (const args of [
      ['--zones', '2'],
      ['--faults', 'rain'],
      ['--seed', 'x'],
      ['--mutant', 'nobody'],
    ]) {
      const { status, text } = sim(...args)
      expect(status, args.join(' ')).toBe(2)
      expect(text).toContain('npm run sim -- [options]')
    }
  })
})
