/**
 * Where a process listens or is reached, and whether bytes may go there in the clear.
 * Pure. Invariant: plain text is for this machine alone, and only when somebody asked for it.
 * Why a name is no loopback: what it means is decided elsewhere, later, by whoever answers for DNS; `localhost` is judged again once it is connected.
 */
import { invalid, KvError } from '../kv/errors.ts'

export type Address =
  | { readonly host: string; readonly port: number }
  /** A Unix socket. */
  | { readonly path: string }

/** As a user reads it: `10.0.0.5:5080`, `[::1]:5080`, `unix:/run/hapax.sock`. */
export function addressText(address: Address): string {
  if ('path' in address) return `unix:${address.path}`
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`
}

/**
 * Reads what `addressText` writes. Port 0 asks for a free one.
 * @throws KvError INVALID_ARGUMENT
 */
export function parseAddress(text: string): Address {
  if (text.startsWith('unix:') && text.length > 'unix:'.length) return { path: text.slice('unix:'.length) }
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]/@]+)):(\d{1,5})$/.exec(text)
  const port = Number(match?.[3])
  const host = match?.[1] ?? match?.[2]
  if (host === undefined || port > 65_535)
    invalid(`an address is host:port or unix:/path, not ${JSON.stringify(text)}`, "for example '127.0.0.1:8080' or '[::1]:8080'")
  return { host, port }
}

/** Whether an IP address names this machine: 127.0.0.0/8, ::1, and both as an IPv4-mapped IPv6 address. */
export function isLoopback(ip: string | undefined): boolean {
  if (ip === undefined) return false
  const bare = ip.toLowerCase().replace(/^::ffff:(?=\d)/, '')
  return bare === '::1' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(bare)
}

/**
 * Refuses plain text to or from anywhere but this machine.
 * @throws KvError INVALID_ARGUMENT
 */
export function needLoopback(address: Address): void {
  if ('path' in address || address.host === 'localhost' || isLoopback(address.host)) return
  throw plainRefused(addressText(address))
}

export const plainRefused = (where: string): KvError =>
  new KvError('INVALID_ARGUMENT', {
    message: `plain text is allowed on loopback alone, not at ${where}`,
    hint: 'give a certificate (hapax cert init, hapax cert issue), or use 127.0.0.1, [::1], localhost or unix:/path',
  })
