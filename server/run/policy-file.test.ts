/** Policies in files: what they may say, and that half of one is none (W12). */
import { describe, expect, test } from 'vitest'
import { isKvError } from '../../core/kv/errors.ts'
import { parsePolicy } from './policy-file.ts'

const mistakeOf = (text: string, isJson = false): Promise<string> =>
  parsePolicy(text, isJson).then(
    () => 'none',
    (error: unknown) => (isKvError(error, 'INVALID_ARGUMENT') ? error.message : Promise.reject(error)),
  )
const rule = '[[rule]]\nclients = ["payments"]\nnamespaces = ["pay*"]\n'

test('a policy of all that there is', async () => {
  const text = `preset = "juno"\n${rule}verbs = ["get", "create"]\nvalue-bytes-max = 1000\nttl-max = "1h"\nrequests-per-second = 50\n
[[namespace]]\nname = "pay*"\nkey-bytes-max = 64\nttl-default = "30m"\nversion-max = 65535\n`
  expect(await parsePolicy(text, false)).toEqual({
    preset: 'juno',
    rules: [
      {
        clients: ['payments'],
        namespaces: ['pay*'],
        verbs: ['get', 'create'],
        valueBytesMax: 1_000,
        ttlMsMax: 3_600_000,
        requestsPerSecond: 50,
      },
    ],
    // What is not said is the preset's, so it must not be there.
    namespaces: [{ name: 'pay*', keyBytesMax: 64, ttlMsDefault: 1_800_000, versionMax: 65_535 }],
  })
})

test('JSON says the same', async () => {
  const json = JSON.stringify({ rule: [{ clients: ['payments'], namespaces: ['pay*'] }] })
  expect(await parsePolicy(json, true)).toEqual(await parsePolicy(rule, false))
})

test('an empty file allows nobody anything', async () => {
  expect(await parsePolicy('', false)).toEqual({ preset: 'wide', rules: [], namespaces: [] })
})

describe('a mistake is told, and there is no policy', () => {
  test.each([
    ['preset = "narrow"', 'preset is one of wide, juno'],
    ['rules = []', 'there is no rules; there are preset, rule, namespace'],
    ['rule = "all"', 'rule is a list of tables'],
    ['[[rule]]\nclients = ["a"]\n', 'rule 1: namespaces is a list of texts'],
    [`${rule}verb = ["get"]`, 'rule 1: there is no verb'],
    [`${rule}verbs = ["read"]`, 'rule 1: verbs are create, get, update, set, destroy, not "read"'],
    [`${rule}ttl-max = "soon"`, 'rule 1: ttl-max is a duration'],
    [`${rule}requests-per-second = 0`, 'rule 1: requests-per-second is a whole number from 1'],
    [`${rule}${rule.replace('"payments"', '')}`, 'rule 2: clients is a list of texts'],
    ['[[namespace]]\nname = ""', 'namespace 1: name is a text'],
    ['[[namespace]]\nname = "a"\nversion-max = 4294967296', 'namespace 1: version-max is a whole number from 1 to 4294967295'],
    ['preset = ', 'cannot be read'],
  ])('%j', async (text, said) => {
    expect(await mistakeOf(text)).toContain(said)
  })
  test('of JSON', async () => {
    expect(await mistakeOf('{', true)).toContain('cannot be read')
    expect(await mistakeOf('[]', true)).toContain('a policy is a table')
  })
})
