/** Settings: who wins, where each comes from, and what is said about mistakes (W18). */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { isKvError } from '../../core/kv/errors.ts'
import { checkSettings, flagOf, readSettings, settings, variableOf, type Given, type ProcessRole } from './settings.ts'

let dir: string
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'hapax-settings-'))
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

let files = 0
function file(text: string): string {
  const path = join(dir, `${++files}.toml`)
  writeFileSync(path, text)
  return path
}
const read = (given: Partial<Given>) => readSettings({ flags: {}, env: {}, ...given })
const mistakeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: unknown) => (isKvError(error, 'INVALID_ARGUMENT') ? error.message : Promise.reject(error)),
  )

describe('a setting', () => {
  test('of a flag wins over the environment, that over the file, and that over the default', async () => {
    const path = file('shards = 8\nname = "file"\nlisten = "127.0.0.1:1"\n')
    const env = { HAPAX_NAME: 'env', HAPAX_LISTEN: '127.0.0.1:2' }
    const { values, origins } = await read({ file: path, env, flags: { listen: '127.0.0.1:3' } })
    expect(values).toMatchObject({ zones: 3, shards: 8, name: 'env', listen: '127.0.0.1:3' })
    expect(origins).toMatchObject({
      zones: 'default',
      shards: `line 1 of ${path}`,
      name: 'HAPAX_NAME',
      listen: '--listen',
      cluster: 'not set',
    })
  })

  test('is under its section in a file, and joined by hyphens and underscores elsewhere', async () => {
    const { values } = await read({ file: file('[tls]\nca = "a"\n[map]\netcd = ["b:1", "c:2"]\n'), env: { HAPAX_TLS_CERT: 'd' } })
    expect(values).toMatchObject({ 'tls.ca': 'a', 'tls.cert': 'd', 'map.etcd': ['b:1', 'c:2'] })
    expect([flagOf('map.password-file'), variableOf('map.password-file')]).toEqual(['--map-password-file', 'HAPAX_MAP_PASSWORD_FILE'])
  })

  test('of a variable or a flag is text, and is read as what it has to be', async () => {
    const { values } = await read({
      env: { HAPAX_ZONES: '5', HAPAX_PLAIN: 'true', HAPAX_MAP_ETCD: 'a:1, b:2' },
      flags: { shards: '12', 'timeouts.read': '300ms' },
    })
    expect(values).toMatchObject({ zones: 5, plain: true, 'map.etcd': ['a:1', 'b:2'], shards: 12, 'timeouts.read': 300 })
    expect(values).toMatchObject({ 'timeouts.idle': 120_000 })
  })
})

describe('a mistake', () => {
  test.each([
    ['shard = 12', 'line 1 of FILE: there is no setting shard: did you mean shards?'],
    ['[tsl]\nca = "x"', 'line 2 of FILE: there is no setting tsl.ca: did you mean tls.ca?'],
    ['shards = "many"', 'line 1 of FILE: shards is a whole number from 1 to 2048, not "many"'],
    ['\nzones = 4', 'line 2 of FILE: zones is one of 1, 3, 5, not 4'],
    ['plain = "perhaps"', 'line 1 of FILE: plain is true or false, not "perhaps"'],
    ['[map]\netcd = "a:1,"', 'line 2 of FILE: map.etcd is a list of texts, not "a:1,"'],
    ['name = 7', 'line 1 of FILE: name is a text, not 7'],
    ['timeouts.read = "soon"', 'line 1 of FILE: timeouts.read is a duration such as 5s, from 100ms to 600s, not "soon"'],
    ['[timeouts]\nidle = 1999', 'line 2 of FILE: timeouts.idle is a duration such as 5s, from 2s to 86400s, not 1999'],
    ['name = ', 'FILE: Invalid TOML document'],
  ])('%j in a file is told with its place', async (text, said) => {
    const path = file(text)
    expect(await mistakeOf(read({ file: path }))).toContain(said.replace('FILE', path))
  })

  test('does not hide the next one', async () => {
    const told = await mistakeOf(
      read({ file: file('shards = 0\nzones = 2\n'), env: { HAPAX_ZONE: 'nine' }, flags: { durability: 'never' } }),
    )
    for (const part of ['shards', 'zones', 'HAPAX_ZONE', '--durability']) expect(told).toContain(part)
  })

  test('in the name of a variable is a warning, for it may be of another program', async () => {
    const { warnings } = await read({ env: { HAPAX_SHARD: '1', HAPAX_URL: 'hapax://a', PATH: '/' } })
    expect(warnings).toEqual(['HAPAX_SHARD means nothing: did you mean HAPAX_SHARDS?'])
  })

  test('in the path of a secret does not repeat it: it may be the secret', async () => {
    expect(await mistakeOf(read({ file: file('keys = ["1 0123abcd"]\n') }))).toMatch(/: keys is a text$/)
  })

  test('is a file that is not there', async () => {
    expect(await mistakeOf(read({ file: join(dir, 'none.toml') }))).toContain('cannot be read')
  })
})

describe('a role', () => {
  const tls = '[tls]\nca = "a"\ncert = "b"\nkey = "c"\n'
  const storage = `cluster = "c"\nname = "s"\nzone = 1\ndata = "d"\n${tls}[map]\nfile = "m"\n`
  const proxy = `cluster = "c"\nname = "p"\npolicy = "p"\nkeys = "k"\n${tls}[map]\nfile = "m"\n`
  const check = async (role: ProcessRole, text: string): Promise<string> =>
    mistakeOf(read({ file: file(text) }).then(({ values }) => checkSettings(role, values)))

  test('has all that it needs', async () => {
    expect(await check('storage', storage)).toBe('none')
    expect(await check('proxy', proxy)).toBe('none')
    expect(await check('storage', 'cluster = "c"\nname = "s"\nzone = 1\nmemory = true\nplain = true\nmap = { etcd = ["a:1"] }\n')).toBe(
      'none',
    )
  })
  test.each<readonly [ProcessRole, string, string, string]>([
    ['storage', 'cluster = "c"\n', '', 'cluster is not set'],
    ['storage', 'zone = 1\n', '', 'zone is not set'],
    ['storage', 'zone = 1', 'zone = 4', 'zone 4 is not one of 3'],
    ['storage', 'data = "d"\n', '', 'a directory, or it keeps nothing'],
    ['storage', 'data = "d"\n', 'data = "d"\nmemory = true\n', 'a directory, or it keeps nothing'],
    ['storage', 'data = "d"\n', 'data = "d"\nkeys = "k"\n', 'keys is a setting of a proxy'],
    ['storage', 'key = "c"\n', '', 'tls.key is not set'],
    ['storage', 'cluster = "c"\n', 'cluster = "c"\nplain = true\n', 'contradict each other'],
    ['storage', 'file = "m"\n', '', 'in a file or in etcd'],
    ['storage', 'file = "m"\n', 'file = "m"\netcd = ["a:1"]\n', 'in a file or in etcd'],
    ['proxy', 'policy = "p"\n', '', 'policy is not set'],
    ['proxy', 'keys = "k"\n', '', 'keys is not set'],
    ['proxy', 'keys = "k"\n', 'keys = "k"\nencryption = "off"\n', 'encryption is off'],
    ['proxy', 'keys = "k"\n', 'keys = "k"\nzone = 1\n', 'zone is a setting of a storage'],
  ])('%s without what it needs (%j becomes %j) is told: %s', async (role, find, replace, said) => {
    const whole = role === 'storage' ? storage : proxy
    expect(whole).toContain(find)
    expect(await check(role, whole.replace(find, replace))).toContain(said)
  })
})

test('no setting is a secret: those are in files', () => {
  expect(Object.keys(settings).filter((name) => /password|secret|token/.test(name) && !name.endsWith('-file'))).toEqual([])
})
