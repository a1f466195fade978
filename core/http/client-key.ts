/**
 * Who sent a request, as far as its address tells: the key of a limit for clients that have not said who they are.
 * Invariant: only what a trusted proxy wrote is believed. Each client has one key, however its address is written, and an IPv6 client cannot
 * change its key within its network.
 * Why not `req.ip` or `ctx.ip`: what they say depends on a setting elsewhere, whose usual mistakes give everybody one bucket, or anybody a new one.
 */
import { channel } from 'node:diagnostics_channel'
import { invalid } from '../kv/errors.ts'
import { contains, holdsAllIpv4, networkText, parseIpAndPort, parseNetwork, type IpAddress, type IpNetwork } from './ip-address.ts'

/** What is looked at: Node's request, or Express's, which is one. */
export interface AddressedRequest {
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>
  readonly socket?: { readonly remoteAddress?: string | undefined } | undefined
}

/** A request, or a context that holds one (Koa). */
export type Addressed = AddressedRequest | { readonly req: AddressedRequest }

export interface ClientKeyOptions {
  /**
   * Who may write `X-Forwarded-For`. A number: so many proxies stand before this process, 0 to 32. A list: their networks ('10.0.0.0/8',
   * 'fd00::/8', one address), or 'loopback', 'linklocal', 'uniquelocal', which mean what they mean in Express.
   * Say 0 if there is none. Not said: none is trusted, and a request that carries the header gives a warning.
   */
  readonly trustProxy?: number | readonly string[] | undefined
  /** Bits of an IPv6 address that make one client, 1 to 128. Default: 56, what a provider gives to one household at most. */
  readonly ipv6Prefix?: number | undefined
}

export type ClientKeyEventType =
  /** No address, or none that can be read: the request shares one key with all such requests. */
  | 'unknown-address'
  /** A mistake in the settings, once per process; also a warning of the process. */
  | 'misused'

/** Told on the diagnostics channel `hapax:client-key`. Holds nothing of the request. */
export interface ClientKeyEvent {
  readonly type: ClientKeyEventType
  /** Of `misused`. */
  readonly code?: ClientKeyWarning | undefined
  readonly message?: string | undefined
}

/** Codes of `process.emitWarning`. */
export type ClientKeyWarning = keyof typeof warnings

const warnings = {
  HAPAX_TRUST_PROXY_MISSING:
    'clientKey: a request came with X-Forwarded-For, but `trustProxy` is not set: if a proxy wrote it, all clients behind that proxy share one limit; say how many proxies stand before this process, or 0',
  HAPAX_TRUST_PROXY_ALL:
    "clientKey: the framework believes every X-Forwarded-For (Express 'trust proxy': true, or Koa proxy: true without maxIpsCount), so anybody can choose req.ip or ctx.ip; clientKey goes by its own `trustProxy`",
  HAPAX_FORWARDED_IGNORED:
    'clientKey: a request came with the Forwarded header (RFC 7239), which is not read; let the proxy write X-Forwarded-For',
  HAPAX_FORWARDED_FOR_SHORT:
    'clientKey: a request came through fewer proxies than `trustProxy` says; either it went around a proxy, or a proxy does not write X-Forwarded-For and its clients share one limit',
} as const

const defaults = { ipv6Prefix: 56 } as const
/** Proxies in a row, and entries of a header that are looked at. */
const hopsMax = 32

/** As Express names them (proxy-addr). */
const namedNetworks: Readonly<Record<string, readonly string[]>> = {
  loopback: ['127.0.0.0/8', '::1'],
  linklocal: ['169.254.0.0/16', 'fe80::/10'],
  uniquelocal: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7'],
}

/** IPv4 clients behind a translator: their last bits tell them apart, so the whole address counts (RFC 6052, RFC 8215). */
const translated = ['64:ff9b::/96', '64:ff9b:1::/48'].map(networkOf)

/**
 * Makes the function that names a request's client: 'ip:203.0.113.7', 'ip:2001:db8:0:100::/56', or 'ip:unknown' for all without a readable
 * address. For `key` of a door; of Express, Koa, or Node's own request.
 * @throws KvError INVALID_ARGUMENT for options out of range.
 * @example app.use(rateLimited(api, { key: clientKey({ trustProxy: 1 }) }))
 */
export function clientKey({ trustProxy, ipv6Prefix = defaults.ipv6Prefix }: ClientKeyOptions = {}): (from: Addressed) => string {
  if (!Number.isInteger(ipv6Prefix) || ipv6Prefix < 1 || ipv6Prefix > 128)
    invalid('clientKey: ipv6Prefix must be a whole number from 1 to 128')
  const trusted = trustOf(trustProxy)
  return (from) => {
    const request = 'req' in from ? from.req : from
    const forwarded = lineOf(request.headers['x-forwarded-for'])
    if (trustProxy === undefined && forwarded !== '') warn('HAPAX_TRUST_PROXY_MISSING')
    if (request.headers['forwarded'] !== undefined) warn('HAPAX_FORWARDED_IGNORED')
    if (forwarded !== '' && believesAll(from)) warn('HAPAX_TRUST_PROXY_ALL')
    const address = clientOf(request.socket?.remoteAddress, forwarded, trusted)
    if (address === undefined) {
      if (events.hasSubscribers) events.publish({ type: 'unknown-address' } satisfies ClientKeyEvent)
      return 'ip:unknown'
    }
    const isWhole = translated.some((network) => contains(network, address))
    return `ip:${networkText(address, isWhole ? 128 : ipv6Prefix)}`
  }
}

type Trust = { readonly hops: number } | { readonly networks: readonly IpNetwork[] }

function trustOf(trustProxy: ClientKeyOptions['trustProxy']): Trust {
  if (trustProxy === undefined) return { hops: 0 }
  if (typeof trustProxy === 'number') {
    if (Number.isInteger(trustProxy) && trustProxy >= 0 && trustProxy <= hopsMax) return { hops: trustProxy }
  } else if (Array.isArray(trustProxy)) {
    return { networks: (trustProxy as readonly string[]).flatMap((name) => namedNetworks[name] ?? [name]).map(networkOf) }
  }
  return invalid(
    `clientKey: trustProxy must be a number of proxies from 0 to ${hopsMax} or a list of networks, not ${JSON.stringify(trustProxy)}`,
    'to trust every proxy lets anybody choose an address',
  )
}

function networkOf(text: string): IpNetwork {
  const network = parseNetwork(text) ?? invalid(`clientKey: ${JSON.stringify(text)} is no network such as '10.0.0.0/8' or 'fd00::/8'`)
  if (network.bits === 0 || holdsAllIpv4(network))
    invalid(`clientKey: ${JSON.stringify(text)} is everybody`, 'to trust every proxy lets anybody choose an address')
  return network
}

/**
 * From the peer through the header's entries, right to left, to the first that no trusted proxy has: that one a trusted proxy wrote down.
 * @returns undefined when it cannot be read.
 */
function clientOf(peer: string | undefined, forwarded: string, trust: Trust): IpAddress | undefined {
  const isCounted = 'hops' in trust
  let place = peer ?? ''
  let end = forwarded.length
  for (let hop = 0; hop < (isCounted ? trust.hops : hopsMax); hop++) {
    if (!isCounted) {
      const address = parseIpAndPort(place)
      if (address === undefined || !trust.networks.some((network) => contains(network, address))) return address
    }
    if (end <= 0) {
      if (isCounted) warn('HAPAX_FORWARDED_FOR_SHORT')
      break
    }
    const comma = forwarded.lastIndexOf(',', end - 1)
    place = forwarded.slice(comma + 1, end)
    end = comma
  }
  // Under a number of proxies their own addresses do not matter: a peer on a Unix socket has none.
  return parseIpAndPort(place)
}

/** Several lines are one list (RFC 9110, 5.3); Node joins them, others may not. */
const lineOf = (value: string | readonly string[] | undefined): string => (typeof value === 'string' ? value : (value?.join(',') ?? ''))

/** Looks at the framework's own setting, by shape. */
function believesAll(from: object): boolean {
  if (!('app' in from) || from.app === null || (typeof from.app !== 'object' && typeof from.app !== 'function')) return false
  const app = from.app as { get?: (name: string) => unknown; proxy?: unknown; maxIpsCount?: unknown }
  if (app.proxy === true) return !app.maxIpsCount
  return typeof app.get === 'function' && app.get('trust proxy') === true
}

const events = channel('hapax:client-key')
const warned = new Set<ClientKeyWarning>()

/** Once per process: it is about a setting, and who sends requests must not fill a log. */
function warn(code: ClientKeyWarning): void {
  if (warned.has(code)) return
  warned.add(code)
  const message = warnings[code]
  if (events.hasSubscribers) events.publish({ type: 'misused', code, message } satisfies ClientKeyEvent)
  process.emitWarning(message, { type: 'HapaxWarning', code })
}
