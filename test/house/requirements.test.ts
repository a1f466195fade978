/**
 * Where a program that a group needs comes from (G3).
 * Invariant: the PATH before an npm package before the system's package manager, and whoever is left without gets the reason of each way.
 * Why installers of paper: the order and the words are ours, what npm and apt-get do over a network is not; a script stands for each program.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

interface Found {
  readonly path?: string
  readonly missing?: string
}
interface Machine {
  readonly platform: string
  readonly isRoot: boolean
  readonly cache: string
  readonly systemFolder: string
  say(line: string): void
  hasApt(): boolean
  npm(args: readonly string[]): { status: number | null }
  apt(args: readonly string[], env: NodeJS.ProcessEnv): { status: number | null }
}
interface Requirements {
  readonly requirements: Readonly<Record<string, object>>
  findProgram(row: object, env: NodeJS.ProcessEnv, on?: Machine): Promise<Found>
}
const { requirements, findProgram } = (await import(new URL('../../tools/requirements.mjs', import.meta.url).href)) as Requirements

let folder: string
let asked: string[]
let said: string[]
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'hapax-needs-'))
  for (const name of ['path', 'system']) mkdirSync(join(folder, name))
  asked = []
  said = []
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const program = (path: string, exitCode = 0): string => {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, `#!/bin/sh\nexit ${exitCode}\n`, { mode: 0o755 })
  return path
}
const row = {
  env: 'HAPAX_THING',
  names: ['thing', 'other-thing'],
  npm: {
    name: 'thing-binary',
    version: '1.0.0',
    platform: 'linux-x64',
    unpack: "import 'thing-binary'",
    env: { THING: 'yes' },
    program: 'thing',
    libraries: 'lib',
    fonts: 'letters',
  },
  apt: 'thing-package',
}
/** What the package does when it is unpacked: like the real one it keeps what is there already. */
const unpacks = `import { existsSync, writeFileSync } from 'node:fs'
  if (process.env.THING !== 'yes') throw new Error('the environment is not its own')
  const path = process.env.TMPDIR + '/thing'
  const works = '#!/bin/sh\\n[ "$1" = --version ] && [ "$(basename "$LD_LIBRARY_PATH")" = lib ]\\n'
  if (!existsSync(path)) writeFileSync(path, works, { mode: 0o755 })`

interface Installers {
  readonly npmCode?: string | undefined
  readonly aptStatus?: number
  readonly brings?: (() => void) | undefined
}
const machine = ({ npmCode, aptStatus = 0, brings }: Installers = {}, more: Partial<Machine> = {}): Machine => ({
  platform: 'linux-x64',
  isRoot: true,
  cache: join(folder, 'cache'),
  systemFolder: join(folder, 'system'),
  say: (line) => void said.push(line),
  npm(args) {
    asked.push(`npm ${args[0]} ${args.at(-1)}`)
    if (npmCode === undefined) return { status: 1 }
    const place = join(folder, 'cache/node_modules/thing-binary')
    mkdirSync(place, { recursive: true })
    writeFileSync(join(place, 'package.json'), JSON.stringify({ name: 'thing-binary', version: '1.0.0', type: 'module', main: 'index.js' }))
    writeFileSync(join(place, 'index.js'), npmCode)
    return { status: 0 }
  },
  hasApt: () => true,
  apt(args, env) {
    asked.push(`apt-get ${args[0]}${args[0] === 'install' ? ` ${args.at(-1)}` : ''}`)
    expect(env).toMatchObject({ DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' })
    if (args[0] === 'install') brings?.()
    return { status: args[0] === 'install' ? aptStatus : 0 }
  },
  ...more,
})
const env = (): NodeJS.ProcessEnv => ({ PATH: [join(folder, 'nowhere'), join(folder, 'path'), '/usr/bin', '/bin'].join(delimiter) })
const npmAsked = 'npm install thing-binary@1.0.0'
const aptAsked = ['apt-get update', 'apt-get install thing-package']

describe.skipIf(process.platform === 'win32')('a program', () => {
  test('of the PATH is taken, under any of its names, and nobody is asked to install', async () => {
    const path = program(join(folder, 'path/other-thing'))
    expect(await findProgram(row, env(), machine({ npmCode: unpacks }))).toEqual({ path })
    expect(asked).toEqual([])
  })
  test('of its variable is taken before that, and refused with a reason when it does not run', async () => {
    program(join(folder, 'path/thing'))
    const own = program(join(folder, 'own'))
    expect(await findProgram(row, { ...env(), HAPAX_THING: own }, machine())).toEqual({ path: own })
    program(own, 1)
    expect(await findProgram(row, { ...env(), HAPAX_THING: own }, machine())).toEqual({ missing: `HAPAX_THING=${own} does not run` })
  })
  test('that does not run on the PATH comes from npm with its libraries and fonts, and from what lies there the next time', async () => {
    program(join(folder, 'path/thing'), 1)
    const path = join(folder, 'cache/run-thing')
    expect(await findProgram(row, env(), machine({ npmCode: unpacks }))).toEqual({ path })
    expect(await findProgram(row, env(), machine({ npmCode: unpacks }))).toEqual({ path })
    expect(asked).toEqual([npmAsked])
    expect(said).toEqual(['thing: not on the PATH, installing thing-binary@1.0.0'])
    const script = readFileSync(path, 'utf8')
    expect(script).toContain(`LD_LIBRARY_PATH='${join(folder, 'cache/unpacked/lib')}'`)
    const fonts = readFileSync(/FONTCONFIG_FILE='(.*?)'/.exec(script)?.[1] ?? '', 'utf8')
    for (const each of [join(folder, 'cache/unpacked/letters'), '/etc/fonts/fonts.conf']) expect(fonts).toContain(`>${each}<`)
  })
  test('that was unpacked by half is unpacked anew', async () => {
    expect(await findProgram(row, env(), machine({ npmCode: unpacks }))).toHaveProperty('path')
    program(join(folder, 'cache/unpacked/thing'), 1)
    expect(await findProgram(row, env(), machine({ npmCode: unpacks }))).toEqual({ path: join(folder, 'cache/run-thing') })
    expect(asked).toEqual([npmAsked])
  })
  test('that npm cannot bring, or whose package does not work, comes from the system, also beside the PATH', async () => {
    for (const npmCode of [undefined, "throw new Error('no')", unpacks.replace('basename', 'false')]) {
      asked = []
      const path = join(folder, 'system/thing')
      rmSync(join(folder, 'cache'), { recursive: true, force: true })
      rmSync(path, { force: true })
      const brings = () => void program(path)
      expect(await findProgram(row, env(), machine({ npmCode, brings }))).toEqual({ path })
      expect(asked).toEqual([npmAsked, ...aptAsked])
    }
  })
})

describe.skipIf(process.platform === 'win32')('a program that is nowhere is missing with the reason of each way', () => {
  const missing = async (on: Machine, of: object = row): Promise<string | undefined> => (await findProgram(of, env(), on)).missing
  test('when both installers fail', async () => {
    expect(await missing(machine({ aptStatus: 100 }))).toBe(
      'thing is not to be had: not on the PATH; npm install thing-binary@1.0.0 failed: exit code 1; ' +
        'apt-get install thing-package failed: exit code 100',
    )
  })
  test('when what they bring does not run', async () => {
    const brings = () => void program(join(folder, 'system/thing'), 1)
    expect(await missing(machine({ npmCode: unpacks.replace('basename', 'false'), brings }))).toBe(
      'thing is not to be had: not on the PATH; that of thing-binary@1.0.0 does not run here; ' +
        'apt-get install thing-package succeeded, and what it brought does not run',
    )
    expect(await missing(machine({ npmCode: unpacks }), { ...row, npm: { ...row.npm, env: {} } })).toContain(
      'thing-binary@1.0.0 cannot be unpacked: Error: the environment is not its own',
    )
  })
  test('on another platform and without root, where nobody is asked to install', async () => {
    expect(await missing(machine({}, { platform: 'linux-arm64', isRoot: false }))).toBe(
      'thing is not to be had: not on the PATH; thing-binary@1.0.0 is for linux-x64 and this is linux-arm64; ' +
        'only root may: apt-get install thing-package',
    )
    expect(asked).toEqual([])
    expect(existsSync(join(folder, 'cache'))).toBe(false)
  })
  test('without apt-get, and when no package exists', async () => {
    expect(await missing(machine({}, { hasApt: () => false }), { ...row, npm: undefined })).toBe(
      'thing is not to be had: not on the PATH; no npm package carries it; there is no apt-get',
    )
    expect(await missing(machine(), { env: 'X', names: ['x'] })).toBe(
      'x is not to be had: not on the PATH; no npm package carries it; the system has no package of it',
    )
  })
})

test('every program of the table has an exact version of its npm package, or none, and a package of the system', () => {
  const npmOf = (of: object) => ('npm' in of ? of.npm : undefined)
  expect(Object.keys(requirements)).toEqual(['chromium', 'redis', 'etcd'])
  expect(npmOf(requirements.chromium ?? {})).toMatchObject({ version: expect.stringMatching(/^\d+\.\d+\.\d+$/) })
  for (const of of Object.values(requirements)) expect(of).toMatchObject({ env: expect.stringMatching(/^HAPAX_/), apt: expect.any(String) })
})
