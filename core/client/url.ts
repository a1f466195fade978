/**
 * What `hapax://...` says: which proxies, and which namespace.
 * Pure. Invariant: nothing secret has a place in it, for URLs end up in logs; certificates are given as options.
 */
import { invalid } from '../kv/errors.ts'
import { parseAddress, type Address } from '../net/address.ts'

export interface Target {
  /** At least one. */
  readonly addresses: readonly Address[]
  readonly namespace: string
}

const namespaceDefault = 'default'
/** JunoDB's ports: in the clear, and by TLS. */
export const ports = Object.freeze({ plain: 8080, tls: 5080 })
const form = 'hapax://host:port,host:port/namespace, or hapax+unix:///path/of/socket?namespace=name'

/**
 * Reads `hapax://10.0.0.5:5080,10.0.0.6:5080/pay`. Without a port it is 5080, or 8080 when `isPlain`; without a namespace it is `default`.
 * @throws KvError INVALID_ARGUMENT
 */
export function parseUrl(url: string, { isPlain }: { readonly isPlain: boolean }): Target {
  if (typeof url !== 'string') invalid(`a URL is a string, not ${typeof url}`, form)
  const unix = /^hapax\+unix:\/\/(\/[^?#]+)(?:\?namespace=([^&#]*))?$/.exec(url)
  if (unix !== null) return { addresses: [{ path: decoded(unix[1] as string) }], namespace: namespaceOf(unix[2]) }
  const match = /^hapax:\/\/([^/?#@]+)(?:\/([^/?#]*))?$/.exec(url)
  if (match === null) {
    // Not repeated in the message: whoever wrote a password into it would find it in a log.
    const hint = url.includes('@') ? 'there is no user and no password: a client is known by its certificate (tls)' : form
    return invalid('this is no URL of a cluster', hint)
  }
  const addresses = (match[1] as string).split(',').map((text) => addressOf(text, isPlain ? ports.plain : ports.tls))
  return { addresses, namespace: namespaceOf(match[2]) }
}

function addressOf(text: string, port: number): Address {
  const hasPort = /\]:\d+$|^[^:[\]]+:\d+$/.test(text)
  const address = parseAddress(hasPort ? text : `${text}:${port}`)
  if ('port' in address && address.port === 0) invalid('port 0 is no port to connect to', form)
  return address
}

const namespaceOf = (text: string | undefined): string => (text === undefined || text === '' ? namespaceDefault : decoded(text))

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return invalid('a part of the URL is not percent-encoded UTF-8', form)
  }
}
