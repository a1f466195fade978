/** PayPal's published Java client, unmodified, against a cluster of ours (W15). Runs where Java and Maven are, and its packages can be had. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { connect } from '../../core/client/client.ts'
import type { Role } from '../../core/net/identity.ts'
import { Credentials, type TlsFiles } from '../../core/net/tls.ts'
import { initAuthority, issueInFolder } from '../../server/edge/certificates.ts'
import type { Policy } from '../../server/proxy/policy.ts'
import { startCluster, type TestCluster } from '../../server/edge/testdata/cluster.ts'

const sources = fileURLToPath(new URL('java/', import.meta.url))
const cache = fileURLToPath(new URL('../../node_modules/.cache/hapax-java/', import.meta.url))

/** The class path of the client with the compiled program, or why there is none. */
function compiled(): { readonly classPath: string } | { readonly why: string } {
  for (const program of ['javac', 'mvn'])
    if (spawnSync(program, ['-version'], { stdio: 'ignore' }).status !== 0) return { why: `there is no ${program}` }
  mkdirSync(cache, { recursive: true })
  const list = join(cache, 'class-path.txt')
  const fetched = spawnSync(
    'mvn',
    ['-q', '-B', '-f', join(sources, 'pom.xml'), 'dependency:build-classpath', `-Dmdep.outputFile=${list}`],
    {
      encoding: 'utf8',
      timeout: 150_000,
    },
  )
  if (fetched.status !== 0) return { why: 'the packages of the client cannot be had' }
  const classPath = `${cache}:${readFileSync(list, 'utf8').trim()}`
  const made = spawnSync('javac', ['-proc:none', '-cp', classPath, '-d', cache, join(sources, 'Compat.java')], { encoding: 'utf8' })
  if (made.status !== 0) throw new Error(`Compat.java does not compile:\n${made.stderr}`)
  return { classPath }
}
const program = compiled()

const policy: Policy = { preset: 'juno', namespaces: [], rules: [{ clients: ['*'], namespaces: ['*'] }] }
let folder: string
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'hapax-java-'))
  await initAuthority(folder, 'test', now)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const now = epochMs(Date.now())
async function filesOf(role: Role, name: string): Promise<TlsFiles> {
  await issueInFolder(folder, { role, name, hosts: role === 'client' ? [] : ['127.0.0.1'] }, now)
  return { ca: join(folder, 'ca.crt'), cert: join(folder, `${role}-${name}.crt`), key: join(folder, `${role}-${name}.key`) }
}

describe.skipIf('why' in program).each([
  ['in the clear', false],
  ['over TLS 1.3 with a certificate of its own', true],
] as const)(`PayPal's Java client, %s${'why' in program ? ` (skipped: ${program.why})` : ''}`, (_name, isSecure) => {
  let cluster: TestCluster
  const told = new Map<string, readonly string[]>()
  const opened: Credentials[] = []
  const credentialsOf = async (role: Role, name: string): Promise<Credentials> => {
    const credentials = await Credentials.open(await filesOf(role, name))
    opened.push(credentials)
    return credentials
  }

  beforeAll(async () => {
    cluster = await startCluster({ policy, ...(isSecure ? { credentialsOf } : {}) })
    const tls = isSecure ? await filesOf('client', 'java') : undefined
    // A proxy answers once it knows the clocks of a quorum; our client waits for that by itself.
    const ours = await connect(cluster.url, tls === undefined ? {} : { tls })
    await ours.get('anything')
    await ours.close()
    const address = cluster.proxies[0]?.address
    if (!('classPath' in program) || address === undefined || !('port' in address)) throw new Error('there is nothing to run')
    const child = spawn(
      'java',
      ['-cp', program.classPath, 'Compat', String(address.port), ...(tls === undefined ? [] : [tls.ca, tls.cert, tls.key])],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    )
    let said = ''
    let noise = ''
    child.stdout.on('data', (bytes: Buffer) => (said += bytes.toString()))
    child.stderr.on('data', (bytes: Buffer) => (noise = (noise + bytes.toString()).slice(-4_000)))
    const status = await new Promise((resolve) => child.once('close', resolve))
    if (status !== 0 || !said.endsWith('end\n')) throw new Error(`it ended with ${String(status)}:\n${said}\n${noise}`)
    for (const line of said.split('\n')) {
      const [name = '', ...fields] = line.split('\t')
      told.set(name, fields)
    }
  }, 120_000)
  afterAll(async () => {
    await cluster.close()
    for (const one of opened) await one[Symbol.asyncDispose]()
  })

  test.each<[string, readonly string[]]>([
    ['sync get of nothing', ['NoKey', '0', '', 'false']],
    ['sync update of nothing', ['NoKey', '0', '', 'false']],
    ['sync create', ['Success', '1', '', 'true']],
    ['sync create again', ['UniqueKeyViolation', '0', '', 'false']],
    ['sync get', ['Success', '1', 'one', 'true']],
    ['sync get with a longer life', ['Success', '1', 'one', 'true']],
    ['sync update', ['Success', '2', '', 'true']],
    ['sync compareAndSet', ['Success', '3', '', 'true']],
    ['sync compareAndSet of an old state', ['ConditionViolation', '3', 'four', 'true']],
    ['sync set', ['Success', '4', '', 'true']],
    ['sync get after set', ['Success', '4', 'six', 'true']],
    ['sync delete', ['Success', '1', '', 'false']],
    ['sync delete of nothing', ['Success', '1', '', 'false']],
    ['sync get after delete', ['NoKey', '0', '', 'false']],
    ['sync compareAndSet of nothing', ['NoKey', '0', '', 'false']],
    ['sync create after delete', ['Success', '1', '', 'true']],
    ['sync set of a new key', ['Success', '1', '', 'true']],
    ['sync empty value', ['Success', '1', '', 'true']],
    ['sync get of an empty value', ['Success', '1', '', 'true']],
    ['longest key', ['Success', '1', '', 'true']],
    ['largest value', ['Success', '1', '', 'true']],
    ['get of the largest value', ['Success', '1', '204800 bytes', 'true']],
    ['longest life', ['Success', '1', '', 'true']],
    ['binary key', ['Success', '1', '', 'true']],
    ['get of a binary key', ['Success', '1', 'binary', 'true']],
    ['batch of 50 creates', ['50']],
    ['batch of 60 gets', ['50']],
    ['compressed set', ['Success', '1', '', 'true']],
    ['compressed get', ['true']],
    ['async create', ['Success', '1', '', 'true']],
    ['async get', ['Success', '1', 'one', 'true']],
    ['async delete', ['Success', '1', '', 'false']],
    ['reactor create', ['Success', '1', '', 'true']],
    ['reactor get', ['Success', '1', 'one', 'true']],
    ['reactor delete', ['Success', '1', '', 'false']],
    ['count', ['true', 'true', '[]']],
  ])('%s is told as %j', (name, expected) => {
    expect(told.get(name)).toEqual(expected)
  })

  test('nothing else was told', () => {
    expect(told.size).toBe(36 + 2) // the end, and the empty line after it
  })
})
