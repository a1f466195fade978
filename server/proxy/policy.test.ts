/** Who may do what: the matrix of client, verb and namespace, the limits, and the rates. */
import { expect, test } from 'vitest'
import { Admission, openPolicy, policyVerbs, statusOfRefusal, type Asked, type Policy } from './policy.ts'

const policy: Policy = {
  preset: 'juno',
  rules: [
    { clients: ['payments-api'], namespaces: ['pay', 'pay-*'] },
    { clients: ['report-*'], namespaces: ['pay*'], verbs: ['get'] },
    { clients: ['guest'], namespaces: ['*'], verbs: ['create', 'get'], valueBytesMax: 100, ttlMsMax: 60_000, requestsPerSecond: 10 },
  ],
  namespaces: [
    { name: 'pay-small', valueBytesMax: 10 },
    { name: 'busy', requestsPerSecond: 2 },
  ],
}
const asked = (rest: Partial<Asked> = {}): Asked => ({
  client: 'payments-api',
  namespace: 'pay',
  verb: 'get',
  namespaceBytes: 3,
  keyBytes: 5,
  valueBytes: 0,
  ttlMs: 0,
  ...rest,
})
const judged = (rest: Partial<Asked>, admission = new Admission(policy), mono = 0): string => {
  const verdict = admission.judge(asked(rest), mono)
  return verdict.isAllowed ? 'allowed' : verdict.fault
}

test('each client may do in each namespace what a rule says, and nothing else', () => {
  const clients = ['payments-api', 'report-1', 'guest', 'payments-api2', '', '*']
  const namespaces = ['pay', 'pay-eu', 'payroll', 'other']
  const allowed: Record<string, Record<string, readonly string[]>> = {
    'payments-api': { pay: policyVerbs, 'pay-eu': policyVerbs },
    'report-1': { pay: ['get'], 'pay-eu': ['get'], payroll: ['get'] },
    guest: Object.fromEntries(namespaces.map((namespace) => [namespace, ['create', 'get']])),
  }
  for (const client of clients)
    for (const namespace of namespaces)
      for (const verb of policyVerbs) {
        const isAllowed = allowed[client]?.[namespace]?.includes(verb) === true
        expect(judged({ client, namespace, verb }), `${client} ${verb} ${namespace}`).toBe(isAllowed ? 'allowed' : 'FORBIDDEN')
      }
})

test.each<[string, Partial<Asked>, string]>([
  ['a key of the largest size', { keyBytes: 256 }, 'allowed'],
  ['a key that is larger', { keyBytes: 257 }, 'TOO_LARGE'],
  ['no key', { keyBytes: 0 }, 'INVALID_ARGUMENT'],
  ['no namespace', { namespaceBytes: 0 }, 'INVALID_ARGUMENT'],
  ['a namespace that is too long', { namespaceBytes: 65 }, 'TOO_LARGE'],
  ['a value of the largest size', { verb: 'set', valueBytes: 204_800 }, 'allowed'],
  ['a value that is larger', { verb: 'set', valueBytes: 204_801 }, 'TOO_LARGE'],
  ['the longest life', { verb: 'create', ttlMs: 259_200_000 }, 'allowed'],
  ['a longer one', { verb: 'create', ttlMs: 259_201_000 }, 'TOO_LARGE'],
  ['a value beyond what the namespace takes', { namespace: 'pay-small', verb: 'set', valueBytes: 11 }, 'TOO_LARGE'],
  ['a value beyond what the rule allows', { client: 'guest', verb: 'create', valueBytes: 101 }, 'TOO_LARGE'],
  [
    'a value within the rule but beyond the namespace',
    { client: 'guest', namespace: 'pay-small', verb: 'create', valueBytes: 50 },
    'TOO_LARGE',
  ],
  ['a life beyond what the rule allows', { client: 'guest', verb: 'create', ttlMs: 60_001 }, 'TOO_LARGE'],
])('%s: %j is %s', (_what, rest, expected) => {
  expect(judged(rest)).toBe(expected)
})

test('a client has its requests a second, a second long at once, and gets them again as time passes', () => {
  const admission = new Admission(policy)
  const guest = (mono: number): string => judged({ client: 'guest' }, admission, mono)
  expect(Array.from({ length: 11 }, () => guest(1_000))).toEqual([...Array<string>(10).fill('allowed'), 'BUSY'])
  expect(guest(1_099)).toBe('BUSY')
  expect(guest(1_100)).toBe('allowed')
  expect(judged({ client: 'payments-api' }, admission, 1_000)).toBe('allowed')
  // What is refused is not counted.
  for (let time = 0; time < 100; time++) guest(1_150)
  expect(guest(1_200)).toBe('allowed')
})

test('a namespace has its requests a second for all clients together', () => {
  const admission = new Admission({ ...policy, rules: openPolicy.rules })
  expect(['a', 'b', 'c'].map((client) => judged({ client, namespace: 'busy' }, admission))).toEqual(['allowed', 'allowed', 'BUSY'])
})

test('a new policy holds at once, also for a client that is connected', () => {
  const admission = new Admission(policy)
  expect(judged({}, admission)).toBe('allowed')
  admission.replace({ ...policy, rules: [] })
  expect(judged({}, admission)).toBe('FORBIDDEN')
  admission.replace(openPolicy)
  expect(judged({ client: '' }, admission)).toBe('allowed')
})

test('what it keeps of clients and namespaces has a bound', () => {
  const admission = new Admission({ ...openPolicy, rules: [{ clients: ['*'], namespaces: ['*'], requestsPerSecond: 1 }] })
  for (let name = 0; name < 25_000; name++) expect(judged({ client: `c${name}` }, admission)).toBe('allowed')
  expect(judged({ client: 'c24999' }, admission)).toBe('BUSY') // the latest are remembered
  expect(judged({ client: 'c1' }, admission)).toBe('allowed') // the oldest begin anew
})

test('JunoDB has a status for each refusal', () => {
  expect([
    statusOfRefusal('FORBIDDEN'),
    statusOfRefusal('TOO_LARGE'),
    statusOfRefusal('INVALID_ARGUMENT'),
    statusOfRefusal('BUSY'),
  ]).toEqual([2, 7, 7, 14])
})
