/**
 * The settings of a process of a cluster: what there is, where it comes from, and what is wrong with it.
 * Invariant: a flag wins over the environment, that over the file, and that over the default; each value knows its origin; nothing that is
 * not known is passed over in silence, and no message repeats a value of a secret, for secrets are in files of their own.
 * Why a table: the flag, the variable, the line of the file, the document and the check of a setting are one row.
 */
import { readFile } from 'node:fs/promises'
import { parseDuration, type Duration } from '../../core/base/types.ts'
import { invalid, KvError } from '../../core/kv/errors.ts'

export const processRoles = ['storage', 'proxy'] as const
export type ProcessRole = (typeof processRoles)[number]

type Kind =
  | { readonly type: 'text' }
  | { readonly type: 'list' }
  | { readonly type: 'flag' }
  | { readonly type: 'whole'; readonly least: number; readonly most: number }
  /** Written as `30s`, kept in milliseconds. */
  | { readonly type: 'duration'; readonly leastMs: number; readonly mostMs: number }
  | { readonly type: 'choice'; readonly of: readonly (string | number)[] }

interface Row {
  readonly kind: Kind
  readonly what: string
  /** Absent: both. */
  readonly role?: ProcessRole
  /** The path of a secret. No error tells what it was set to: it is the secret itself when somebody took it for that. */
  readonly isSecret?: true
  readonly initial?: string | number | boolean | readonly string[]
}

const text = { type: 'text' } as const
const list = { type: 'list' } as const
const flag = { type: 'flag' } as const
const whole = (least: number, most: number) => ({ type: 'whole', least, most }) as const
const duration = (leastMs: number, mostMs: number) => ({ type: 'duration', leastMs, mostMs }) as const
const choice = <const T extends readonly (string | number)[]>(...of: T) => ({ type: 'choice', of }) as const

/** By their path in the file: `tls.ca` is `ca` under `[tls]`, `--tls-ca`, and HAPAX_TLS_CA. docs/settings.md is this table. */
export const settings = {
  cluster: { kind: text, what: 'the name of the cluster, as its certificates have it' },
  name: { kind: text, what: 'the name of this process, as its certificate has it; one of a kind in the cluster' },
  zones: { kind: choice(1, 3, 5), initial: 3, what: 'zones of the cluster, for its whole life' },
  shards: { kind: whole(1, 2_048), initial: 1_024, what: 'shards of the cluster, for its whole life' },
  listen: { kind: text, initial: '127.0.0.1:0', what: 'where it listens: host:port, or unix:/path' },
  plain: { kind: flag, initial: false, what: 'in the clear, on this machine alone' },
  'tls.ca': { kind: text, what: 'PEM file of the authority of the cluster' },
  'tls.cert': { kind: text, what: 'PEM file of the certificate of this process' },
  'tls.key': { kind: text, isSecret: true, what: 'PEM file of its key, for its owner alone' },
  'map.file': { kind: text, what: 'the map of shards in a file: all processes on one machine' },
  'map.etcd': { kind: list, initial: [], what: 'the map of shards in etcd: its addresses' },
  'map.prefix': { kind: text, initial: '/hapax/', what: 'before every key in etcd; clusters that share an etcd need different ones' },
  'map.copy': { kind: text, what: 'a file with a copy of the map of etcd, for a start while etcd is away' },
  'map.ca': { kind: text, what: 'PEM file of the authority of etcd' },
  'map.cert': { kind: text, what: 'PEM file of the certificate that etcd is shown' },
  'map.key': { kind: text, isSecret: true, what: 'PEM file of its key' },
  'map.user': { kind: text, what: 'a user of etcd' },
  'map.password-file': { kind: text, isSecret: true, what: 'a file with the password of that user' },
  'timeouts.handshake': { kind: duration(100, 60_000), initial: 2_000, what: 'for somebody without a certificate to show one' },
  'timeouts.read': { kind: duration(100, 600_000), initial: 5_000, what: 'for a message to come, from its first byte to its last' },
  'timeouts.write': { kind: duration(100, 600_000), initial: 10_000, what: 'for somebody to take any byte of his answers' },
  'timeouts.idle': { kind: duration(2_000, 86_400_000), initial: 120_000, what: 'for silence of somebody who waits for nothing' },
  'admin.listen': { kind: text, initial: '127.0.0.1:0', what: 'where /livez, /readyz, /metrics and /status are; on this machine alone' },
  'log.level': { kind: choice('debug', 'info', 'warn', 'error', 'off'), initial: 'info', what: 'of the log, JSON lines on stderr' },
  processes: {
    kind: whole(1, 64),
    initial: 1,
    what: 'of the system, under one that restarts them: proxies share a port; each storage server is one of its own, see cli.md',
  },
  zone: { role: 'storage', kind: whole(1, 5), what: 'which zone it is in, from 1' },
  'servers-per-zone': {
    role: 'storage',
    kind: whole(1, 256),
    initial: 1,
    what: 'so many storage servers of each zone found the cluster together, and share its shards; the same for all of them',
  },
  data: { role: 'storage', kind: text, what: 'its directory' },
  memory: { role: 'storage', kind: flag, initial: false, what: 'keeps nothing; other zones teach it anew' },
  durability: {
    role: 'storage',
    kind: choice('fsync', 'os'),
    initial: 'fsync',
    what: 'fsync: each batch is synced; os: no power cut is survived',
  },
  advertise: { role: 'storage', kind: text, what: 'where others reach it, host:port; default: where it listens' },
  'cache-bytes': { role: 'storage', kind: whole(0, 2 ** 40), initial: 67_108_864, what: 'records in memory' },
  policy: { role: 'proxy', kind: text, what: 'a TOML or JSON file: who may do what; needed with certificates' },
  encryption: { role: 'proxy', kind: choice('on', 'off'), initial: 'on', what: 'of values at rest; off only when said so' },
  keys: { role: 'proxy', kind: text, isSecret: true, what: 'the key file, for its owner alone; `hapax cert key` makes it' },
  'keys-retired': {
    role: 'proxy',
    kind: list,
    initial: [],
    what: 'versions under which no value lies any more, and which the key file need not have; what still lies there is then unreadable',
  },
  'plain-ids-repeat': { role: 'proxy', kind: flag, initial: false, what: "clients of JunoDB's send a request again under its id" },
} as const satisfies Record<string, Row>

export type SettingName = keyof typeof settings
type ValueOf<K> = K extends { type: 'flag' }
  ? boolean
  : K extends { type: 'list' }
    ? readonly string[]
    : K extends { type: 'whole' | 'duration' }
      ? number
      : K extends { type: 'choice'; of: readonly (infer T)[] }
        ? T
        : string
type OfRow<R> = R extends { readonly kind: infer K; readonly initial: unknown }
  ? ValueOf<K>
  : R extends { readonly kind: infer K }
    ? ValueOf<K> | undefined
    : never
export type Settings = { readonly [Name in SettingName]: OfRow<(typeof settings)[Name]> }

/** `--tls-ca`, `HAPAX_TLS_CA`, `line 4 of hapax.toml`, `default`. */
export type Origin = string
export interface Read {
  readonly values: Settings
  readonly origins: Readonly<Record<SettingName, Origin>>
  /** What is odd and does no harm: a variable that means nothing. */
  readonly warnings: readonly string[]
}

export const flagOf = (name: string): string => `--${name.replaceAll('.', '-')}`
export const variableOf = (name: string): string => `HAPAX_${name.replaceAll(/[.-]/g, '_').toUpperCase()}`
/** Those of the command line's verbs, and of a run of the tests. */
const otherVariables = new Set(['HAPAX_URL', 'HAPAX_ADMIN', 'HAPAX_CA', 'HAPAX_CERT', 'HAPAX_KEY', 'HAPAX_ETCD', 'HAPAX_SEED'])

const names = Object.keys(settings) as SettingName[]
const rowOf = (name: SettingName): Row => settings[name]
export const isSecret = (name: SettingName): boolean => rowOf(name).isSecret === true

export interface Given {
  readonly flags: Readonly<Partial<Record<string, string | boolean | undefined>>>
  readonly env: Readonly<Record<string, string | undefined>>
  /** The path of a TOML file. */
  readonly file?: string | undefined
}

/** @throws KvError INVALID_ARGUMENT with every mistake in it, one a line, each with its place. */
export async function readSettings({ flags, env, file }: Given): Promise<Read> {
  const mistakes: string[] = []
  const values: Record<string, unknown> = {}
  const origins: Record<string, Origin> = {}
  for (const name of names) {
    const { initial } = rowOf(name)
    if (initial !== undefined) values[name] = initial
    origins[name] = initial === undefined ? 'not set' : 'default'
  }
  const take = (name: SettingName, given: unknown, origin: Origin): void => {
    const value = valueIn(rowOf(name).kind, given)
    if (typeof value === 'object' && 'wanted' in value)
      return void mistakes.push(`${origin}: ${name} is ${value.wanted}${isSecret(name) ? '' : `, not ${toldOf(given)}`}`)
    values[name] = value
    origins[name] = origin
  }
  if (file !== undefined) await takeFile(file, take, mistakes)
  for (const name of names) {
    const variable = variableOf(name)
    if (env[variable] !== undefined) take(name, env[variable], variable)
  }
  for (const name of names) {
    const given = flags[name]
    if (given !== undefined) take(name, given, flagOf(name))
  }
  if (mistakes.length > 0) throw new KvError('INVALID_ARGUMENT', { message: mistakes.join('\n'), hint: 'docs/settings.md has all of them' })
  const known = new Set([...names.map(variableOf), ...otherVariables])
  const warnings = Object.keys(env)
    .filter((variable) => variable.startsWith('HAPAX_') && !known.has(variable))
    .map((variable) => `${variable} means nothing${suggestion(variable, [...known])}`)
  return { values: values as unknown as Settings, origins: origins as Record<SettingName, Origin>, warnings }
}

async function takeFile(
  file: string,
  take: (name: SettingName, given: unknown, origin: Origin) => void,
  mistakes: string[],
): Promise<void> {
  const content = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new KvError('INVALID_ARGUMENT', { message: `${file} cannot be read`, hint: 'give the path of a TOML file', cause })
  })
  const { parse } = await import('smol-toml')
  let table: Record<string, unknown>
  try {
    table = parse(content)
  } catch (error) {
    return void mistakes.push(`${file}: ${(error as Error).message.split('\n')[0]}`)
  }
  const lines = content.split('\n')
  for (const [name, given] of flat(table)) {
    const at = lineOf(lines, name)
    const origin = at === 0 ? file : `line ${at} of ${file}`
    const known = names.find((one) => one === name)
    if (known === undefined) mistakes.push(`${origin}: there is no setting ${name}${suggestion(name, names)}`)
    else take(known, given, origin)
  }
}

/** `[tls] ca = 1` is `tls.ca`. */
function flat(table: Record<string, unknown>, before = ''): (readonly [string, unknown])[] {
  return Object.entries(table).flatMap(([key, value]) =>
    typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
      ? flat(value as Record<string, unknown>, `${before}${key}.`)
      : [[`${before}${key}`, value] as const],
  )
}

/** Where a setting stands: the parser tells only places of mistakes in the syntax. 0: it was written in some other way. */
function lineOf(lines: readonly string[], name: string): number {
  const [last, ...before] = name.split('.').reverse()
  const section = before.reverse().join('.')
  let inside = ''
  for (const [index, line] of lines.entries()) {
    inside = /^\s*\[\s*([^\]\s]+)\s*\]/.exec(line)?.[1] ?? inside
    const key = /^\s*([\w.-]+)\s*=/.exec(line)?.[1]
    if ((inside === section && key === last) || (inside === '' && key === name)) return index + 1
  }
  return 0
}

function valueIn(kind: Kind, given: unknown): string | number | boolean | readonly string[] | { readonly wanted: string } {
  switch (kind.type) {
    case 'text':
      return typeof given === 'string' && given !== '' ? given : { wanted: 'a text' }
    case 'list': {
      const items = typeof given === 'string' ? given.split(',').map((item) => item.trim()) : given
      const isList = Array.isArray(items) && items.every((item) => typeof item === 'string' && item !== '')
      return isList ? (items as readonly string[]) : { wanted: 'a list of texts' }
    }
    case 'flag':
      if (typeof given === 'boolean') return given
      return given === 'true' ? true : given === 'false' ? false : { wanted: 'true or false' }
    case 'whole': {
      const number = typeof given === 'string' && /^\d{1,15}$/.test(given) ? Number(given) : given
      const isIn = typeof number === 'number' && Number.isInteger(number) && number >= kind.least && number <= kind.most
      return isIn ? number : { wanted: `a whole number from ${kind.least} to ${kind.most}` }
    }
    case 'duration': {
      const ms = parseDuration(given as Duration)
      const isIn = ms !== undefined && ms >= kind.leastMs && ms <= kind.mostMs
      return isIn ? ms : { wanted: `a duration such as 5s, from ${durationText(kind.leastMs)} to ${durationText(kind.mostMs)}` }
    }
    case 'choice':
      return kind.of.find((one) => one === given || String(one) === given) ?? { wanted: `one of ${kind.of.join(', ')}` }
  }
}

/** As it is written: `5s`, `100ms`. */
export const durationText = (ms: number): string => (ms % 1_000 === 0 ? `${ms / 1_000}s` : `${ms}ms`)

const toldOf = (given: unknown): string => (typeof given === 'string' ? `"${given.slice(0, 80)}"` : `${JSON.stringify(given)}`.slice(0, 80))

/** The nearest name, when it is near. */
function suggestion(wanted: string, known: readonly string[]): string {
  const [nearest, steps] = known
    .map((one) => [one, distance(wanted, one)] as const)
    .reduce((best, one) => (one[1] < best[1] ? one : best), ['', Infinity] as const)
  return steps <= Math.max(2, wanted.length / 4) ? `: did you mean ${nearest}?` : ''
}

/** Levenshtein's: letters to add, drop or change. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++)
      next.push(Math.min((row[j] as number) + 1, (next[j - 1] as number) + 1, (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)))
    row = next
  }
  return row.at(-1) as number
}

/** What a role cannot do without, and what contradicts each other. @throws KvError INVALID_ARGUMENT */
export function checkSettings(role: ProcessRole, values: Settings): void {
  const need = (name: SettingName): void => {
    if (values[name] === undefined)
      invalid(`${name} is not set`, `${rowOf(name).what}: ${flagOf(name)}, ${variableOf(name)}, or in the file`)
  }
  need('cluster')
  need('name')
  const isTls = values['tls.ca'] !== undefined || values['tls.cert'] !== undefined || values['tls.key'] !== undefined
  if (values.plain && isTls) invalid('plain and certificates contradict each other', 'take one of them away')
  if (!values.plain) for (const name of ['tls.ca', 'tls.cert', 'tls.key'] as const) need(name)
  if ((values['map.file'] === undefined) === (values['map.etcd'].length === 0))
    invalid('the map is in a file or in etcd', 'set map.file or map.etcd, and not both')
  if (role === 'storage') {
    need('zone')
    if ((values.zone as number) > values.zones) invalid(`zone ${values.zone} is not one of ${values.zones}`)
    if (values.memory === (values.data !== undefined))
      invalid('a storage server has a directory, or it keeps nothing', 'set data or memory, and not both')
  } else {
    if (!values.plain) need('policy')
    if (values.encryption === 'on') need('keys')
    else if (values.keys !== undefined) invalid('there is a key file, and encryption is off', 'take one of them away')
  }
  for (const name of names) {
    const { role: of, initial } = rowOf(name)
    if (of !== undefined && of !== role && values[name] !== undefined && String(values[name]) !== String(initial))
      invalid(`${name} is a setting of a ${of}, and this is a ${role}`, 'take it away')
  }
}
