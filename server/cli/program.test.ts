/** The command line, run in this process: what is printed where, and what it ends with (W18). */
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startCluster, type TestCluster } from '../edge/testdata/cluster.ts'
import { runCommand } from './program.ts'

let cluster: TestCluster
beforeAll(async () => {
  cluster = await startCluster()
})
afterAll(() => cluster.close())

async function hapax(args: readonly string[], input = '', env: Readonly<Record<string, string>> = { HAPAX_URL: cluster.url }) {
  let out = ''
  let err = ''
  const code = await runCommand(
    args,
    {
      env,
      out: (text) => void (out += text),
      err: (text) => void (err += text),
      input: async () => Uint8Array.from(Buffer.from(input)),
      ended: async () => undefined,
      fail: (error) => {
        throw error
      },
    },
    '1.2.3',
  )
  return { code, out, err }
}
const jsonOf = (text: string): Record<string, unknown> => JSON.parse(text) as Record<string, unknown>

describe('the five verbs', () => {
  test('create makes an entry once; the second time shows what is there, and ends with 4', async () => {
    const made = await hapax(['create', 'orders/1', '{"state":"new"}', '--ttl', '1h'])
    expect(made).toMatchObject({ code: 0, err: '' })
    expect(made.out).toMatch(/^created orders\/1: version \S+, expires in (1h 0m|59m 59s)\n$/)
    const again = await hapax(['create', 'orders/1', 'other'])
    expect(again).toMatchObject({ code: 4, out: '' })
    expect(again.err).toMatch(/^refused: orders\/1: there is one already \(version \S+\)\n$/)
  })

  test('get prints the value alone; a key that is not there ends with 3', async () => {
    await hapax(['set', 'orders/2', 'paid'])
    expect(await hapax(['get', 'orders/2'])).toEqual({ code: 0, out: 'paid\n', err: '' })
    expect(await hapax(['get', 'orders/none'])).toEqual({ code: 3, out: '', err: 'there is no orders/none\n' })
  })

  test('a version is one line, and can be given back as it was printed', async () => {
    const { out } = await hapax(['set', 'orders/3', 'a'])
    const version = /version (\S+)/.exec(out)?.[1] as string
    expect(await hapax(['update', 'orders/3', 'b', '--if-version', version])).toMatchObject({ code: 0 })
    const stale = await hapax(['update', 'orders/3', 'c', '--if-version', version])
    expect(stale.code).toBe(4)
    expect(stale.err).toContain('it is in another state')
    expect(await hapax(['destroy', 'orders/3', '--if-version', version])).toMatchObject({ code: 4 })
  })

  test('with -o json a version is as it is, before and after the command', async () => {
    const { out } = await hapax(['-o', 'json', 'set', 'orders/4', 'a'])
    const { version } = jsonOf(out) as { version: string }
    const next = await hapax(['update', 'orders/4', 'b', '--if-version', version, '-o', 'json'])
    expect(jsonOf(next.out)).toMatchObject({ ok: true, key: 'orders/4', value: 'b' })
  })

  test('update and destroy of nothing: the one is refused with 3, the other is done', async () => {
    expect(await hapax(['update', 'orders/gone', 'x'])).toMatchObject({ code: 3 })
    expect(await hapax(['destroy', 'orders/gone'])).toEqual({ code: 0, out: 'destroyed orders/gone\n', err: '' })
  })

  test('an entry keeps its expiry unless it is told another one', async () => {
    await hapax(['create', 'orders/5', 'a', '--ttl', '1h'])
    expect(jsonOf((await hapax(['update', 'orders/5', 'b', '-o', 'json'])).out)).toHaveProperty('expiresAt')
    expect(jsonOf((await hapax(['update', 'orders/5', 'c', '--expiry', 'never', '-o', 'json'])).out)).not.toHaveProperty('expiresAt')
    expect(jsonOf((await hapax(['set', 'orders/5', 'd', '--ttl', '2h', '-o', 'json'])).out)).toHaveProperty('expiresAt')
  })

  test('a dash reads the value from stdin, bytes that are no text come back as base64', async () => {
    await hapax(['set', 'orders/6', '-'], 'from stdin')
    expect((await hapax(['get', 'orders/6'])).out).toBe('from stdin\n')
    expect(jsonOf((await hapax(['get', 'orders/6', '-o', 'json'])).out)).toMatchObject({ value: 'from stdin' })
  })
})

describe('what is wrong', () => {
  const usage = [
    [['gett', 'a'], 'Did you mean get?'],
    [['get'], "missing required argument 'name'"],
    [['get', 'a', '--urll', 'x'], 'Did you mean --url?'],
    [['set', 'a', 'b', '--ttl', 'soon'], 'hint:'],
    [['set', 'a', 'b', '--ttl', '1h', '--expiry', 'never'], 'give one of them'],
    [['set', 'a', 'b', '--expiry', 'soon'], "keep or never, not 'soon'"],
    [['get', 'a', '--ca', 'ca.crt'], 'give --ca, --cert and --key'],
    [['get', 'a', '--url', 'redis://127.0.0.1'], 'hapax://host:port'],
    [['get', 'a', '-o', 'yaml'], 'Allowed choices are text, json'],
    [['dev', '--zones', 'three'], "a whole number, not 'three'"],
    [['dev', '--memory', '--data', 'x'], 'give one of them'],
    [['dev', '--durability', 'never'], 'one of fsync, os'],
    [['cert', 'issue', 'boss', 'me'], 'a role is one of client, proxy, storage, admin'],
    [['explain', 'HPX-0000'], 'docs/errors.md'],
  ] as const
  test.each(usage)('%j ends with 2 and says %s', async (args, said) => {
    const { code, out, err } = await hapax(args)
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(err).toContain(said)
  })

  test('without a URL it says where to put one', async () => {
    const { code, err } = await hapax(['get', 'a'], '', {})
    expect(code).toBe(2)
    expect(err).toContain('HAPAX_URL')
  })

  test('with -o json a fault is a document, too', async () => {
    const { code, out, err } = await hapax(['set', 'a', 'b', '--ttl', 'soon', '-o', 'json'])
    expect({ code, err }).toEqual({ code: 2, err: '' })
    expect(jsonOf(out)).toMatchObject({ ok: false, error: { code: 'INVALID_ARGUMENT', id: 'HPX-2001', retry: 'never' } })
    expect(jsonOf((await hapax(['get', 'none', '-o', 'json'])).out)).toEqual({ ok: false, refusal: 'missing', key: 'none' })
  })
})

describe('without a cluster', () => {
  test('--version and --help end with 0', async () => {
    expect(await hapax(['--version'])).toEqual({ code: 0, out: '1.2.3\n', err: '' })
    const { code, out } = await hapax(['--help'])
    expect(code).toBe(0)
    expect(out).toContain('Exit codes: 0 done')
  })

  test('explain knows each error by number and by code', async () => {
    expect((await hapax(['explain', 'unknown_outcome'])).out).toContain('only a repetition with the same request id')
    expect(jsonOf((await hapax(['explain', 'hpx-2001', '-o', 'json'])).out)).toMatchObject({ id: 'HPX-2001', code: 'INVALID_ARGUMENT' })
  })

  test('cert makes an authority once, and certificates with keys for their owner alone', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'hapax-cert-'))
    try {
      expect(await hapax(['cert', 'init', '--cluster', 'shop', '--dir', dir])).toMatchObject({ code: 0 })
      expect(await hapax(['cert', 'init', '--cluster', 'shop', '--dir', dir])).toMatchObject({ code: 2 })
      const made = await hapax(['cert', 'issue', 'client', 'payments', '--dir', dir, '-o', 'json'])
      expect(jsonOf(made.out)).toEqual({ ok: true, files: [join(dir, 'client-payments.crt'), join(dir, 'client-payments.key')] })
      expect(readdirSync(dir).sort()).toEqual(['ca.crt', 'ca.key', 'client-payments.crt', 'client-payments.key'])
      expect(statSync(join(dir, 'client-payments.key')).mode & 0o777).toBe(0o600)
    } finally {
      rmSync(dir, { recursive: true, force: true })
    }
  })
})
