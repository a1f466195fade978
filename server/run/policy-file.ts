/**
 * Reads a policy from the text of a file, TOML or JSON, and says all that is wrong with it.
 * Invariant: a policy with a mistake is no policy: whoever is allowed by half of one is allowed by chance.
 */
import { invalid } from '../../core/kv/errors.ts'
import { parseDuration, type Duration } from '../../core/base/types.ts'
import { policyPresets, policyVerbs, versionMaxMax, type Policy, type PolicyVerb } from '../proxy/policy.ts'

type Table = Readonly<Record<string, unknown>>

/** What stands in a rule and in a namespace, in the file's words. */
const ruleKeys = ['clients', 'namespaces', 'verbs', 'value-bytes-max', 'ttl-max', 'requests-per-second']
const namespaceKeys = ['name', 'key-bytes-max', 'value-bytes-max', 'ttl-max', 'ttl-default', 'version-max', 'requests-per-second']

/**
 * @example a file: `preset = "wide"`, then for each rule `[[rule]]`, `clients = ["payments"]`, `namespaces = ["pay*"]`, `verbs = ["get"]`
 * @throws KvError INVALID_ARGUMENT
 */
export async function parsePolicy(text: string, isJson: boolean): Promise<Policy> {
  const mistakes: string[] = []
  const table = await tableIn(text, isJson)
  unknownIn(table, ['preset', 'rule', 'namespace'], 'the policy', mistakes)
  const preset = table['preset'] ?? 'wide'
  if (typeof preset !== 'string' || !(preset in policyPresets)) mistakes.push(`preset is one of ${Object.keys(policyPresets).join(', ')}`)
  const rules = listIn(table, 'rule', mistakes).map((rule, index) => {
    const where = `rule ${index + 1}`
    unknownIn(rule, ruleKeys, where, mistakes)
    const verbs = rule['verbs'] === undefined ? undefined : textsIn(rule, 'verbs', where, mistakes)
    for (const verb of verbs ?? [])
      if (!(policyVerbs as readonly string[]).includes(verb)) mistakes.push(`${where}: verbs are ${policyVerbs.join(', ')}, not "${verb}"`)
    return {
      clients: textsIn(rule, 'clients', where, mistakes),
      namespaces: textsIn(rule, 'namespaces', where, mistakes),
      verbs: verbs as readonly PolicyVerb[] | undefined,
      valueBytesMax: wholeIn(rule, 'value-bytes-max', where, mistakes),
      ttlMsMax: durationIn(rule, 'ttl-max', where, mistakes),
      requestsPerSecond: wholeIn(rule, 'requests-per-second', where, mistakes),
    }
  })
  const namespaces = listIn(table, 'namespace', mistakes).map((namespace, index) => {
    const where = `namespace ${index + 1}`
    unknownIn(namespace, namespaceKeys, where, mistakes)
    const { name } = namespace
    if (typeof name !== 'string' || name === '') mistakes.push(`${where}: name is a text`)
    return withoutAbsent({
      name: String(name),
      keyBytesMax: wholeIn(namespace, 'key-bytes-max', where, mistakes),
      valueBytesMax: wholeIn(namespace, 'value-bytes-max', where, mistakes),
      ttlMsMax: durationIn(namespace, 'ttl-max', where, mistakes),
      ttlMsDefault: durationIn(namespace, 'ttl-default', where, mistakes),
      versionMax: wholeIn(namespace, 'version-max', where, mistakes, versionMaxMax),
      requestsPerSecond: wholeIn(namespace, 'requests-per-second', where, mistakes),
    })
  })
  if (mistakes.length > 0) invalid(mistakes.join('\n'), 'docs/settings.md has an example')
  return { preset: preset as Policy['preset'], rules, namespaces }
}

async function tableIn(text: string, isJson: boolean): Promise<Table> {
  try {
    const table = isJson ? (JSON.parse(text) as unknown) : (await import('smol-toml')).parse(text)
    if (typeof table === 'object' && table !== null && !Array.isArray(table)) return table as Table
  } catch (error) {
    return invalid(`the policy cannot be read: ${(error as Error).message.split('\n')[0]}`)
  }
  return invalid('a policy is a table')
}

function listIn(table: Table, name: string, mistakes: string[]): readonly Table[] {
  const list = table[name] ?? []
  if (Array.isArray(list) && list.every((one) => typeof one === 'object' && one !== null)) return list as readonly Table[]
  mistakes.push(`${name} is a list of tables: [[${name}]]`)
  return []
}

function unknownIn(table: Table, known: readonly string[], where: string, mistakes: string[]): void {
  for (const key of Object.keys(table))
    if (!known.includes(key)) mistakes.push(`${where}: there is no ${key}; there are ${known.join(', ')}`)
}

function textsIn(table: Table, name: string, where: string, mistakes: string[]): readonly string[] {
  const texts = table[name]
  if (Array.isArray(texts) && texts.length > 0 && texts.every((one) => typeof one === 'string' && one !== ''))
    return texts as readonly string[]
  mistakes.push(`${where}: ${name} is a list of texts`)
  return []
}

function wholeIn(table: Table, name: string, where: string, mistakes: string[], most = Number.MAX_SAFE_INTEGER): number | undefined {
  const number = table[name]
  if (number === undefined || (typeof number === 'number' && Number.isSafeInteger(number) && number > 0 && number <= most)) return number
  mistakes.push(`${where}: ${name} is a whole number from 1${most < Number.MAX_SAFE_INTEGER ? ` to ${most}` : ''}`)
  return undefined
}

function durationIn(table: Table, name: string, where: string, mistakes: string[]): number | undefined {
  const duration = table[name]
  if (duration === undefined) return undefined
  const ms = parseDuration(duration as Duration)
  if (ms === undefined) mistakes.push(`${where}: ${name} is a duration such as "30m"`)
  return ms
}

/** What is absent must not cover what the preset says. */
const withoutAbsent = (limits: { readonly name: string } & Readonly<Record<string, string | number | undefined>>) =>
  Object.fromEntries(Object.entries(limits).filter(([, value]) => value !== undefined)) as Policy['namespaces'][number]
