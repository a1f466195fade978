/**
 * Policy: who may do what in which namespace, how large and how long, and how often.
 * Pure. Invariant: what no rule allows is refused; a rule can only narrow what its namespace takes, never widen it.
 * Why names in certificates and not addresses: an address says where somebody is. Source: docs, reliability, "authn/authz".
 */
import { unreachable } from '../../core/base/assert.ts'
import type { KvErrorCode } from '../../core/kv/errors.ts'
import { limitPresets, type Limits } from '../../core/kv/limits.ts'

/** What a client can ask for; a touch is a get that extends a life. */
export const policyVerbs = ['create', 'get', 'update', 'set', 'destroy'] as const
export type PolicyVerb = (typeof policyVerbs)[number]

export interface NamespaceLimits extends Limits {
  /** For an entry that is made without a time to live, in milliseconds; 0: it lives for ever. JunoDB: 1,800 s. */
  readonly ttlMsDefault: number
  /**
   * The last version that JunoDB's clients are told before 1 comes again. JunoDB: all that the field holds, 65,535 in its docker image. A client
   * that sends back no more than a version (Java) cannot tell two states that are so many changes apart.
   */
  readonly versionMax: number
  /** Of all clients together, in one proxy. Absent: no bound but the proxy's own. */
  readonly requestsPerSecond?: number | undefined
}

/** `*` alone is everybody, or every namespace; at the end of a text it stands for any rest. */
export type Pattern = string

export interface Rule {
  /** Names of clients, as their certificates say. */
  readonly clients: readonly Pattern[]
  readonly namespaces: readonly Pattern[]
  /** Default: all. */
  readonly verbs?: readonly PolicyVerb[] | undefined
  readonly valueBytesMax?: number | undefined
  readonly ttlMsMax?: number | undefined
  /** Of one client, in one proxy. */
  readonly requestsPerSecond?: number | undefined
}

export interface Policy {
  /** The first one that fits client, namespace and verb decides. */
  readonly rules: readonly Rule[]
  /** The first one whose name fits decides; none: the preset. */
  readonly namespaces: readonly ({ readonly name: Pattern } & Partial<NamespaceLimits>)[]
  readonly preset: keyof typeof policyPresets
}

/** A version has 32 bits on the wire. */
export const versionMaxMax = 0xffff_ffff

/** `juno` is what the reference's package configuration sets (juno-reference, 1.9). */
export const policyPresets = {
  wide: { ...limitPresets.wide, ttlMsDefault: 0, versionMax: versionMaxMax },
  juno: { ...limitPresets.juno, keyBytesMax: 256, ttlMsDefault: 1_800_000, versionMax: versionMaxMax },
} as const satisfies Record<string, NamespaceLimits>

/** On a plain listener, which is on loopback alone, there are no names. */
export const openPolicy: Policy = { rules: [{ clients: ['*'], namespaces: ['*'] }], namespaces: [], preset: 'wide' }

/** What is known of a request before its value is looked at. */
export interface Asked {
  /** '' on a plain connection. */
  readonly client: string
  readonly namespace: string
  readonly verb: PolicyVerb
  readonly namespaceBytes: number
  readonly keyBytes: number
  readonly valueBytes: number
  /** 0: none was given. */
  readonly ttlMs: number
}

export type Verdict =
  | { readonly isAllowed: true; readonly limits: NamespaceLimits }
  | { readonly isAllowed: false; readonly fault: KvErrorCode & ('FORBIDDEN' | 'TOO_LARGE' | 'INVALID_ARGUMENT' | 'BUSY') }

/** JunoDB's status of a refusal: ServiceDenied, BadParam, Busy. */
export function statusOfRefusal(fault: (Verdict & { isAllowed: false })['fault']): 2 | 7 | 14 {
  switch (fault) {
    case 'FORBIDDEN':
      return 2
    case 'TOO_LARGE':
    case 'INVALID_ARGUMENT':
      return 7
    case 'BUSY':
      return 14
    default:
      return unreachable(fault)
  }
}

/** Counts of rates that are kept; beyond, the one that was used longest ago begins anew. */
const ratesMax = 10_000

/** One policy at work in one proxy. `replace` takes effect at once; what was counted goes on. */
export class Admission {
  #policy: Policy
  /** By rule and client, and by namespace: the theoretical arrival of GCRA, in milliseconds. In the order of use. */
  readonly #rates = new Map<string, number>()
  /** By client, namespace and verb: rules are matched once. Bounded as the rates are. */
  #matched = new Map<string, { readonly rule: Rule | undefined; readonly limits: NamespaceLimits }>()

  constructor(policy: Policy) {
    this.#policy = policy
  }

  replace(policy: Policy): void {
    this.#policy = policy
    this.#matched = new Map()
  }

  /** What a namespace takes, as a client is told when it connects. */
  limitsOf(namespace: string): NamespaceLimits {
    const { namespaces, preset } = this.#policy
    const found = namespaces.find(({ name }) => fits(name, namespace))
    return { ...policyPresets[preset], ...found }
  }

  judge(asked: Asked, nowMono: number): Verdict {
    const { client, namespace, verb } = asked
    const { rule, limits } = this.#match(client, namespace, verb)
    if (asked.namespaceBytes === 0 || asked.keyBytes === 0) return no('INVALID_ARGUMENT')
    if (rule === undefined) return no('FORBIDDEN')
    if (asked.namespaceBytes > limits.namespaceBytesMax || asked.keyBytes > limits.keyBytesMax) return no('TOO_LARGE')
    if (asked.valueBytes > Math.min(limits.valueBytesMax, rule.valueBytesMax ?? Infinity)) return no('TOO_LARGE')
    if (asked.ttlMs > Math.min(limits.ttlMsMax, rule.ttlMsMax ?? Infinity)) return no('TOO_LARGE')
    if (!this.#passes(`n${namespace}`, limits.requestsPerSecond, nowMono)) return no('BUSY')
    if (!this.#passes(`c${client}\n${namespace}`, rule.requestsPerSecond, nowMono)) return no('BUSY')
    return { isAllowed: true, limits }
  }

  #match(client: string, namespace: string, verb: PolicyVerb): { readonly rule: Rule | undefined; readonly limits: NamespaceLimits } {
    const key = `${verb} ${client}\n${namespace}`
    const known = this.#matched.get(key)
    if (known !== undefined) return known
    const rule = this.#policy.rules.find(
      ({ clients, namespaces, verbs }) =>
        clients.some((pattern) => fits(pattern, client)) &&
        namespaces.some((pattern) => fits(pattern, namespace)) &&
        (verbs === undefined || verbs.includes(verb)),
    )
    const match = { rule, limits: this.limitsOf(namespace) }
    if (this.#matched.size >= ratesMax) this.#matched = new Map()
    this.#matched.set(key, match)
    return match
  }

  /** GCRA with a burst of one second. */
  #passes(name: string, perSecond: number | undefined, nowMono: number): boolean {
    if (perSecond === undefined) return true
    const arrival = Math.max(this.#rates.get(name) ?? 0, nowMono)
    if (arrival - nowMono > 1_000 - 1_000 / perSecond) return false
    this.#rates.delete(name)
    this.#rates.set(name, arrival + 1_000 / perSecond)
    if (this.#rates.size > ratesMax) this.#rates.delete(this.#rates.keys().next().value as string)
    return true
  }
}

const no = (fault: (Verdict & { isAllowed: false })['fault']): Verdict => ({ isAllowed: false, fault })

const fits = (pattern: Pattern, text: string): boolean => (pattern.endsWith('*') ? text.startsWith(pattern.slice(0, -1)) : pattern === text)
