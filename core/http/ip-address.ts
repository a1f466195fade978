/**
 * Reads IP addresses and networks from text, and writes the network that an address belongs to.
 * Pure. Invariant: an IPv4 address and its IPv4-mapped form (::ffff:0:0/96, RFC 4291 2.5.5.2) are one value, so no client has two names.
 * Why not node:net: a pattern loads no socket module. The tests hold both equal.
 */

/** Eight groups of 16 bits. IPv4 is ::ffff:a.b.c.d. */
export type IpAddress = readonly number[]

export interface IpNetwork {
  readonly address: IpAddress
  /** Of 128 bits; 96 is all of IPv4. */
  readonly bits: number
}

/** The longest address that is looked at: 45 characters, a zone, brackets and a port. */
const textMax = 80

/** @returns undefined for what is no address. A zone ('%eth0') is dropped. */
export function parseIp(text: string): IpAddress | undefined {
  if (text.length > textMax) return undefined
  if (!text.includes(':')) return parseIpv4(text)
  const zone = text.indexOf('%')
  if (zone === text.length - 1) return undefined
  let rest = zone < 0 ? text : text.slice(0, zone)
  const dot = rest.indexOf('.')
  if (dot >= 0) {
    // A tail in dots is two groups.
    const start = rest.lastIndexOf(':') + 1
    const tail = start > dot ? undefined : parseIpv4(rest.slice(start))
    if (tail === undefined) return undefined
    rest = `${rest.slice(0, start)}${groupOf(tail, 6).toString(16)}:${groupOf(tail, 7).toString(16)}`
  }
  const gap = rest.indexOf('::')
  if (gap < 0) {
    const groups = parseGroups(rest)
    return groups?.length === 8 ? groups : undefined
  }
  const before = gap === 0 ? [] : parseGroups(rest.slice(0, gap))
  const after = gap === rest.length - 2 ? [] : parseGroups(rest.slice(gap + 2))
  if (before === undefined || after === undefined || before.length + after.length > 7) return undefined
  return [...before, ...Array.from({ length: 8 - before.length - after.length }, () => 0), ...after]
}

/** An address as a proxy may write it: in brackets, and with a port. */
export function parseIpAndPort(text: string): IpAddress | undefined {
  if (text.length > textMax) return undefined
  if (!text.includes(':')) return parseIpv4(text.trim())
  const [, bracketed, plain] = /^(?:\[([^\]]*)\](?::\d{1,5})?|([^[\]]*))$/.exec(text.trim()) ?? []
  if (bracketed !== undefined) return bracketed.includes(':') ? parseIp(bracketed) : undefined
  if (plain === undefined) return undefined
  const [, ipv4] = /^([\d.]+):\d{1,5}$/.exec(plain) ?? []
  return parseIp(ipv4 ?? plain)
}

/** '10.0.0.0/8', 'fd00::/8', '::ffff:10.0.0.0/104', or one address. Bits behind the prefix must be zero. */
export function parseNetwork(text: string): IpNetwork | undefined {
  const [, base = text, digits] = /^(.*)\/(\d{1,3})$/.exec(text) ?? []
  const address = parseIp(base)
  if (address === undefined) return undefined
  const bits = digits === undefined ? 128 : Number(digits) + (base.includes(':') ? 0 : 96)
  if (bits > 128) return undefined
  return masked(address, bits).every((group, index) => group === address[index]) ? { address, bits } : undefined
}

export function contains({ address, bits }: IpNetwork, other: IpAddress): boolean {
  for (let index = 0; index * 16 < bits; index++) {
    const mask = maskOf(bits - index * 16)
    if ((groupOf(address, index) & mask) !== (groupOf(other, index) & mask)) return false
  }
  return true
}

const ipv4: IpNetwork = { address: [0, 0, 0, 0, 0, 0xffff, 0, 0], bits: 96 }
export const isIpv4 = (address: IpAddress): boolean => contains(ipv4, address)
/** True for a network that holds every IPv4 address, and maybe more. */
export const holdsAllIpv4 = (network: IpNetwork): boolean => network.bits <= ipv4.bits && contains(network, ipv4.address)

/** IPv4 in dots; IPv6 as its network of so many bits: '2001:db8:0:100::/56'. One text for each network. */
export function networkText(address: IpAddress, bits: number): string {
  if (isIpv4(address)) {
    const [high, low] = [groupOf(address, 6), groupOf(address, 7)]
    return `${high >>> 8}.${high & 0xff}.${low >>> 8}.${low & 0xff}`
  }
  const groups = masked(address, bits)
  let length = 8
  while (length > 0 && groups[length - 1] === 0) length--
  const written = groups.slice(0, length).map((group) => group.toString(16))
  return `${written.join(':')}${length === 8 ? '' : length === 7 ? ':0' : '::'}/${bits}`
}

const masked = (address: IpAddress, bits: number): number[] => address.map((group, index) => group & maskOf(bits - index * 16))
const maskOf = (bits: number): number => (bits >= 16 ? 0xffff : bits <= 0 ? 0 : (0xffff << (16 - bits)) & 0xffff)
const groupOf = (address: IpAddress, index: number): number => address[index] ?? 0

const [dot, zero] = ['.', '0'].map((char) => char.charCodeAt(0)) as [number, number]

/** Four decimal numbers without leading zeros: '010' is eight for some and ten for others. By hand, because every request comes here. */
function parseIpv4(text: string): IpAddress | undefined {
  const bytes: number[] = []
  let byte = -1
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code === dot) {
      if (byte < 0) return undefined
      bytes.push(byte)
      byte = -1
      continue
    }
    const digit = code - zero
    if (digit < 0 || digit > 9 || byte === 0) return undefined
    byte = byte < 0 ? digit : byte * 10 + digit
    if (byte > 255) return undefined
  }
  if (byte < 0 || bytes.length !== 3) return undefined
  const [a = 0, b = 0, c = 0] = bytes
  return [0, 0, 0, 0, 0, 0xffff, (a << 8) | b, (c << 8) | byte]
}

function parseGroups(text: string): number[] | undefined {
  const groups: number[] = []
  for (const group of text.split(':')) {
    if (groups.length === 8 || !/^[0-9a-f]{1,4}$/i.test(group)) return undefined
    groups.push(Number.parseInt(group, 16))
  }
  return groups
}
