/**
 * Who a certificate says its owner is: a cluster, a role in it and a name.
 * Pure. Invariant: a certificate has exactly one identity, or it is refused. The chain is verified before anybody asks.
 * Why a URI among the alternative names (SPIFFE): a host name says where somebody is, not what he may do, and a common name is free text.
 */
import { invalid, KvError } from '../kv/errors.ts'

/** `client`: an application. `admin`: an operator. The others are processes of the cluster, which also dial each other. */
export const roles = ['client', 'proxy', 'storage', 'admin'] as const
export type Role = (typeof roles)[number]

export interface Identity {
  /** The trust domain. Certificates of another one are refused, also under the same CA. */
  readonly cluster: string
  readonly role: Role
  /** Of a process or an application. Letters, digits, dot, underscore, hyphen; 1 to 63 of them. */
  readonly name: string
}

const namePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/
const clusterPattern = /^[a-z0-9][a-z0-9.-]{0,62}$/
const uriPattern = /^spiffe:\/\/([^/]+)\/([^/]+)\/([^/]+)$/

/** @throws KvError INVALID_ARGUMENT for a name that has no place in a URI. */
export function identityUri({ cluster, role, name }: Identity): string {
  if (!clusterPattern.test(cluster))
    invalid(`a cluster is named by lower-case letters, digits, '.' and '-', not ${JSON.stringify(cluster)}`)
  if (!roles.includes(role)) invalid(`a role is one of ${roles.join(', ')}, not ${JSON.stringify(role)}`)
  if (!namePattern.test(name)) invalid(`a name has 1 to 63 letters, digits, '.', '_' and '-', not ${JSON.stringify(name)}`)
  return `spiffe://${cluster}/${role}/${name}`
}

/** The identity of a certificate by its subjectAltName as Node prints it; undefined when there is none, or more than one. */
export function identityOf(subjectAltName: string | undefined): Identity | undefined {
  const uris = namesOf(subjectAltName ?? '').filter(({ type, value }) => type === 'URI' && value.startsWith('spiffe:'))
  const match = uriPattern.exec(uris[0]?.value ?? '')
  if (uris.length !== 1 || match === null) return undefined
  const [, cluster = '', role = '', name = ''] = match
  if (!clusterPattern.test(cluster) || !isRole(role) || !namePattern.test(name)) return undefined
  return { cluster, role, name }
}

export const isRole = (text: string): text is Role => (roles as readonly string[]).includes(text)

/**
 * Splits `DNS:a, URI:b, IP Address:c`. Node quotes a value that has a comma or a quote in it, so none can pretend to be two names;
 * such a value is kept as it is, quotes included, for no name of ours needs them. What cannot be read whole is not read at all.
 */
function namesOf(text: string): { readonly type: string; readonly value: string }[] {
  const names: { type: string; value: string }[] = []
  const next = /([^:",]+):("(?:[^"\\]|\\.)*"|[^,"]*)(?:, |$)/y
  while (next.lastIndex < text.length) {
    const match = next.exec(text)
    if (match === null) return []
    names.push({ type: match[1] ?? '', value: match[2] ?? '' })
  }
  return names
}

/**
 * The identity that a verified certificate has, when it may be at the other end.
 * @throws KvError UNAVAILABLE, never to be tried again: it is not who it should be.
 */
export function admit(found: Identity | undefined, { cluster, allowed }: { cluster: string; allowed: readonly Role[] }): Identity {
  if (found !== undefined && found.cluster === cluster && allowed.includes(found.role)) return found
  const what =
    found === undefined ? 'names no role' : found.cluster === cluster ? `is for a ${found.role}` : `is for cluster ${found.cluster}`
  throw new KvError('UNAVAILABLE', {
    message: `the certificate of the peer ${what}; expected is ${allowed.join(' or ')} of cluster ${cluster}`,
    hint: 'issue one for this role (hapax cert issue), and look whether the address is the right one',
    retry: 'never',
  })
}
